"""Points at which the owner of a search, or a worker of it, is sent a signal: before or after calls of its own code."""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

GRACE = 6.0
"""Seconds of silence after which an owner of ours gives a worker up."""
PERIOD = 0.5
"""Seconds from one sign of life of ours to the next."""


Strike = Callable[[Callable[[], None]], None]
"""Sends this process a signal, if it is time for that, and does something right before."""


@dataclass(frozen=True)
class Point:
    """A point: `before` or after a call of a function, which is `name` of a class or of a module's own.

    One of the first `most` calls is chosen.
    """

    module: str
    name: str
    before: bool = True
    most: int = 2

    def hook(self, strike: Strike) -> None:
        """Strike there from now on."""
        owner: Any = importlib.import_module(f"autoquant.{self.module}")
        *path, name = self.name.split(".")
        for part in path:
            owner = getattr(owner, part)
        original = getattr(owner, name)

        def hooked(*args: Any, **options: Any) -> Any:
            if self.before:
                strike(lambda: self.prepare(*args))
            found = original(*args, **options)
            if not self.before:
                strike(lambda: self.prepare(*args))
            return found

        setattr(owner, name, hooked)

    def prepare(self, *args: Any) -> None:
        """Do something with what the function was called with, right before the signal."""


@dataclass(frozen=True)
class HalfLine(Point):
    """In the middle of a line of a journal, with its lock."""

    def prepare(self, *args: Any) -> None:
        """Write half of it."""
        journal, (log, *_) = args
        journal._lock.acquire()
        with Path(journal._file_path).open("ab") as file:
            file.write(json.dumps(log).encode()[:-8])


OF_WORKER: Mapping[str, Point] = MappingProxyType(
    {
        "in build": Point("tuning.builder", "save_record"),
        "in score": Point("evaluation.scoring.sample_scorer", "_TrialScoring._measure", before=False),
        "scored": Point("tuning.fleet.work", "carried_out", before=False),
        "between files and result": Point("tuning.fleet.work", "result_facts"),
        "half of the files left": Point("tuning.study.artifacts", "Directory.write", before=False),
        "half of a line written": HalfLine("tuning.study.journal_file", "JournalFile.append_logs", most=5),
        "result told": Point("tuning.fleet.work", "WorkerEnded"),
    }
)
OF_OWNER: Mapping[str, Point] = MappingProxyType(
    {
        "plan proposed": Point("tuning.study.study", "Study.propose", before=False),
        "trial given": Point("tuning.fleet.owner", "Fleet.give", before=False),
        "waiting": Point("tuning.fleet.dispatch", "reason_to_end", most=9),
        "result read": Point("tuning.fleet.dispatch", "_accepted"),
        "files taken": Point("tuning.fleet.dispatch", "concluded"),
        "score.json written": Point("tuning.fleet.dispatch", "finish"),
        "trial recorded": Point("tuning.study.stored_trials", "StoredTrials.end", before=False),
        "best kept": Point("tuning.trial_steps", "keep_best", before=False),
        "half of a line written": HalfLine("tuning.study.journal_file", "JournalFile.append_logs", most=20),
        "finalizing": Point("tuning.search", "finalize", most=1),
        "finalized": Point("tuning.search", "keep_pictures", most=1),
        "holdout about to be scored": Point("tuning.certify", "holdout_subset", most=1),
        "holdout scored": Point("tuning.certify", "add_to_holdout_log", most=1),
        "holdout logged": Point("tuning.certify", "add_to_holdout_log", before=False, most=1),
        "certified": Point("tuning.certify", "save", before=False, most=1),
        "workers about to be told": Point("tuning.fleet.crew", "Crew.end", most=1),
        "workers told": Point("tuning.fleet.crew", "Crew.end", before=False, most=1),
    }
)


def striker(number: signal.Signals, call: int, claim: Path) -> Strike:
    """Strikes when it is called so often, if it is the first that makes the file."""
    calls: list[None] = []

    def strike(prepare: Callable[[], None]) -> None:
        calls.append(None)
        if len(calls) < call:
            return
        own = claim.with_name(f"{claim.name}-{os.getpid()}")
        own.write_text(str(os.getpid()))
        with suppress(FileExistsError):
            claim.hardlink_to(own)
            prepare()
            os.kill(os.getpid(), number)

    return strike


def hasten() -> None:
    """Let signs of life, and what is inferred from their absence, be quick: in all that are forked off this process."""
    from autoquant.tuning.fleet import board, crew, ownership, storages, work

    alive: Any = board.Board.alive
    owned: Any = ownership.owned
    functions: tuple[tuple[Any, dict[str, float]], ...] = (
        (alive.__wrapped__, {"period": PERIOD}),
        (work.AtWork.__init__, {"period": PERIOD}),
        (owned.__wrapped__, {"period": PERIOD, "silence": GRACE}),
        (crew.CrewCall.__init__, {"grace": GRACE}),
    )
    for function, values in functions:
        function.__kwdefaults__.update(values)
    setattr(storages, "LOCK_SECONDS", 3)  # noqa: B010  # mypy knows it for a constant


def be_elsewhere() -> None:
    """Let nobody know by the number of this process whether it lives, as if it were on another machine."""
    from autoquant.tuning.fleet import messages

    setattr(messages, "_space", lambda: "elsewhere")  # noqa: B010
