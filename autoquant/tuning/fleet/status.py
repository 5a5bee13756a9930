"""What a search is doing, as anybody can read it where its study is; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from autoquant.errors import RunError
from autoquant.formats.codec import encode
from autoquant.quiet import no_progress
from autoquant.tuning.fleet.board import OWNER, WORKER, Member
from autoquant.tuning.fleet.messages import JOB, LEFT, process_of, read_worker
from autoquant.tuning.fleet.storages import meet_in_folder
from autoquant.tuning.fleet.worker import check_search, meet
from autoquant.tuning.study.journal import NAME, OUTCOME
from autoquant.tuning.study.journal_file import JournalFile
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.stores import check_moved


@dataclass(frozen=True)
class ProcessStatus:
    """The owner or a worker: where it runs, what it does, and its last sign of life, so many seconds ago by its clock.

    One that has `left` says why. Of a worker there is its number, and the trial that it carries out.
    """

    host: str
    pid: int
    doing: str
    seconds: float
    number: int | None = None
    trial: int | None = None
    left: str = ""


@dataclass(frozen=True)
class Status:
    """A search where its study is: how many trials have ended, by Optuna's state, and the best of them.

    `best` has number, value and what people look for of the trial (drop, layers in INT8, score). `owner` is None where
    none was ever met there, as of a search that carries its trials out itself; `going_on` says whether that works on
    its folder, None where nobody can tell.
    """

    where: str
    trials: Mapping[str, int]
    best: Mapping[str, Any] | None
    owner: ProcessStatus | None
    workers: tuple[ProcessStatus, ...]
    going_on: bool | None

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"version": 1, **encode(self)}


def read_status(
    run: Path | None = None, *, storage: str = "", study: str = "", clock: Callable[[], float] = time.time
) -> Status:
    """The status of the search of a run, or of a study in a storage.

    Raises UsageError, RunError where there is none, StorageError where the storage is away.
    """
    check_search(run, storage, study)
    folder = None if run is None else RunFolder(run)
    asked = {} if folder is None else folder.read_request()["request"]
    if folder is not None and not asked.get("storage"):
        if storage:
            check_moved(folder, asked, storage)
        if not folder.workers.exists():
            return _status(str(run), _journal(folder), [], clock, folder.is_locked())
        with closing(meet_in_folder(folder)) as meeting:
            return _status(str(run), _journal(folder), meeting.board.everybody(), clock, folder.is_locked())
    name = study or asked.get("study", "")
    with closing(meet(run, storage, study, no_progress)) as meeting:
        try:
            found = optuna.load_study(study_name=name, storage=meeting.storage)
        except KeyError:
            trials: list[FrozenTrial] = []
        else:
            trials = found.get_trials(deepcopy=False)
        everybody = meeting.board.everybody()
        if not trials and not everybody:
            raise RunError(meeting.where, "there is no such search", hint="was it started with this --study?")
        return _status(meeting.where, trials, everybody, clock, None if folder is None else folder.is_locked())


def _journal(folder: RunFolder) -> list[FrozenTrial]:
    """The trials of a run that has no other storage."""
    if not folder.journal.exists():
        return []
    storage = JournalStorage(JournalFile(str(folder.journal)))
    return optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False)


def _status(
    where: str, trials: list[FrozenTrial], members: list[Member], clock: Callable[[], float], going_on: bool | None
) -> Status:
    counts = {state.name.lower(): sum(one.state is state for one in trials) for state in TrialState}
    owners = [one for one in members if one.role == OWNER]
    workers = [one for one in members if one.role == WORKER]
    now = clock()
    return Status(
        where,
        {name: count for name, count in counts.items() if count},
        _best(trials),
        _process(owners[-1], now) if owners else None,
        tuple(_process(one, now) for one in workers if one.here),
        going_on,
    )


def _best(trials: list[FrozenTrial]) -> Mapping[str, Any] | None:
    complete = [one for one in trials if one.state is TrialState.COMPLETE and OUTCOME in one.user_attrs]
    if not complete:
        return None
    best = min(complete, key=lambda one: (one.value, one.user_attrs.get("drop", 0.0), one.number))
    facts = {name: value for name, value in best.user_attrs.items() if isinstance(value, float | int | str)}
    return {"number": best.number, "value": best.value, **facts}


def _process(member: Member, now: float) -> ProcessStatus:
    is_worker = member.role == WORKER
    process = read_worker(member).process if is_worker else process_of(member)
    job = member.said.get(JOB) or {}
    return ProcessStatus(
        host=process.host,
        pid=process.pid,
        doing=member.doing,
        seconds=max(now - member.time, 0.0),
        number=member.number if is_worker else None,
        trial=job.get("trial", {}).get("number") if member.doing.startswith("trial") else None,
        left="" if member.here else str(member.said.get(LEFT, "gave no sign of life")),
    )
