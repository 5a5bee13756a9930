"""The messages of owner and workers, as attributes of the board hold them."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoquant.errors import RunError
from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.formats.codec import decode, encode, without_nulls
from autoquant.formats.strict import Fields
from autoquant.tuning.fleet.board import ABOUT, OWNER, WORKER, Board, Member
from autoquant.tuning.study.trial import Trial, as_told, sent_facts

JOB, RESULT, LEFT = "job", "result", "left"
"""Attributes of a worker: what the owner gives it, its answer, and why it left, which an owner says too."""
END, REFUSED = "end", "refused"
"""Keys of what is no job: why the worker is to leave, because the search has ended, or for its own sake."""
READY, FLOAT = "ready", "float"
"""Attributes of an owner: the files that workers elsewhere need, by name with their SHA-256, once it has them; and the
SHA-256 of the FP32 outputs on the probe set."""
ENDED = "ended"
"""Why an owner left that brought the search to its end."""
WORKING = ".worker-"
"""The prefix of the folders of a run in which workers build trials."""


@dataclass(frozen=True, slots=True)
class Process:
    """Where a process runs. Numbers of processes are comparable where they have the same `space`."""

    host: str
    pid: int
    cpu: str = ""
    space: str = ""

    @property
    def lives(self) -> bool | None:
        """Whether it is there; None where that cannot be told from here."""
        if not self.space or self.space != _space():
            return None
        return Path(f"/proc/{self.pid}").exists()

    def __str__(self) -> str:
        return f"{self.host} (process {self.pid})"

    @classmethod
    def own(cls) -> Process:
        """That of the caller."""
        return cls(socket.gethostname(), os.getpid(), _cpu(), _space())


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker says of itself when it joins.

    `exact` says that its FP32 outputs are those of the owner, bit by bit. It writes into this `folder` of the run,
    where it has its disk. Of the trials of these numbers it has `kept` results that were not told.
    """

    process: Process
    exact: bool = True
    folder: str = ""
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """A trial to carry out, under a name that no other job has. It fails after so many `seconds`.

    `closest` is the drop of the closest trial so far, where none is within tolerance.
    """

    name: str
    trial: Mapping[str, Any]
    rules: StoppingRules
    seconds: float | None = None
    closest: float | None = None


def job_facts(job: Job) -> Any:
    """A job as the board holds it."""
    facts = {"name": job.name, "trial": job.trial, "rules": encode(job.rules)}
    return without_nulls({**facts, "seconds": job.seconds, "closest": job.closest})


def read_job(facts: Any) -> Job:
    """A job of the board. Raises RunError where it is none."""
    found = Fields(facts, "job", RunError)
    rules = decode(StoppingRules, found.sub("rules"))
    return Job(facts["name"], facts["trial"], rules, facts.get("seconds"), facts.get("closest"))


@dataclass(frozen=True)
class Result:
    """What became of a job: the trial as it ended, and the SHA-256 of those of its `files` that the owner finds among
    the artifacts, by name.
    """

    job: str
    trial: Trial
    files: Mapping[str, str] = field(default_factory=dict)


def result_facts(result: Result) -> Any:
    """A result as the board holds it."""
    return {"job": result.job, "trial": sent_facts(result.trial), "files": dict(result.files)}


def read_result(facts: Any, trial: Trial) -> Result:
    """A result of the board for this trial. Raises RunError where it is none."""
    return Result(facts["job"], as_told(facts["trial"], trial, "result"), facts["files"])


def read_worker(member: Member) -> WorkerFacts:
    """What a worker says of itself. Raises RunError where it says nothing of the kind."""
    return decode(WorkerFacts, Fields(member.said.get(ABOUT), f"worker {member.number}", RunError))


def process_of(member: Member) -> Process:
    """What an owner, or a visitor, says of itself. Raises RunError where it says nothing of the kind."""
    return decode(Process, Fields(member.said.get(ABOUT), f"process {member.number}", RunError))


def has_ended(board: Board) -> bool:
    """Whether the search has come to its end: its last owner says so."""
    owners = [one for one in board.everybody() if one.role == OWNER]
    return bool(owners) and owners[-1].said.get(LEFT) == ENDED


def leave_for_dead(board: Board, member: int, process: Process) -> None:
    """Let a worker be here no more that was this process, which is known to be dead."""
    with suppress(KeyError, RunError):  # of a board that was made again
        found = board.find(member)
        if found.role == WORKER and read_worker(found).process == process:
            board.leave(member, dead=True)


def last_words(member: Member) -> str:
    """Why a worker that is not here any more left, by itself."""
    return str(member.said.get(LEFT, "left"))


def _cpu() -> str:
    """The processor's name, as far as the system tells."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _space() -> str:
    """What numbers of processes are of, where a system says: this start of it, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
