"""A worker from beginning to end: it meets the owner, joins, works, and leaves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from autoquant.errors import UsageError
from autoquant.tuning.events import Listener, Warned
from autoquant.tuning.fleet.join import Patient, SearchEnded, joined
from autoquant.tuning.fleet.storages import Meeting, meet_in_database, meet_in_folder
from autoquant.tuning.fleet.work import AtWork
from autoquant.tuning.session import Clock
from autoquant.tuning.study.databases import check_url
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.stores import check_moved


def work_for(
    run: Path | None = None,
    *,
    storage: str = "",
    study: str = "",
    listener: Listener,
    max_trials: float = math.inf,
    idle: float = math.inf,
    trust_model: bool = False,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    **moved: Any,
) -> str:
    """Carry out trials of the search in a folder, or of a `study` in a `storage`; gives why it ended.

    Raises UsageError, RunError where this worker is refused, StorageError where the storage is away for too long, and
    KeyboardInterrupt once what it had was given back.
    """
    patient = Patient(idle, clock, sleep)
    try:
        with (
            closing(meet(run, storage, study, partial(_warn, listener))) as meeting,
            joined(meeting, run, listener, patient, trust_model=trust_model, moved=moved) as found,
        ):
            return AtWork(found, listener, max_trials=max_trials, idle=idle, clock=clock, sleep=sleep).run()
    except SearchEnded:
        return "the search has ended"


def check_search(run: Path | None, storage: str, study: str) -> None:
    """Raise UsageError where no search is named, or RunError where there is no run: before TensorFlow is loaded."""
    if run is not None:
        RunFolder(run).require_run()
    elif not storage or not study:
        raise UsageError(
            "worker", "which search is it for?", hint="give the folder of its run, or --storage and --study"
        )
    if storage:
        check_url(storage)


def meet(run: Path | None, storage: str, study: str, warn: Callable[[str], None]) -> Meeting:
    """Where the owner of a search is met. Raises as `check_search`."""
    check_search(run, storage, study)
    if run is None:
        return meet_in_database(storage, study, warn)
    folder = RunFolder(run)
    asked = folder.read_request()["request"]
    if storage and (not study or study == asked.get("study")):
        check_moved(folder, asked, storage)
    if asked.get("storage"):
        return meet_in_database(storage or asked["storage"], study or asked["study"], warn)
    if study:
        raise UsageError("--study", f"{run} has its own journal", hint="leave it out")
    return meet_in_folder(folder, warn)


def _warn(listener: Listener, text: str) -> None:
    listener(Warned(text))
