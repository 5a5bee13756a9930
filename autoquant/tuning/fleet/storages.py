"""Where owner and workers of a search meet: in its database, or in a second journal in the folder of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileSymlinkLock

from autoquant.quiet import no_progress
from autoquant.tuning.fleet.board import Board
from autoquant.tuning.fleet.shelf import Shelf
from autoquant.tuning.study.databases import open_database
from autoquant.tuning.study.journal import NAME
from autoquant.tuning.study.journal_file import JournalFile
from autoquant.tuning.study.patience import Patience
from autoquant.tuning.study.patient_storage import PatientStorage
from autoquant.tuning.study.run_folder import RunFolder

LOCK_SECONDS = 15
"""Seconds after which the lock of a journal is taken away from a process that was killed while it wrote."""


@dataclass(frozen=True)
class Meeting:
    """A storage in which owner and workers meet; `where` it is, for people. There are files where disks differ."""

    where: str
    storage: PatientStorage
    board: Board
    shelf: Shelf | None = None

    def close(self) -> None:
        """End its connections."""
        self.storage.close()


def meet_in_folder(folder: RunFolder, warn: Callable[[str], None] = no_progress) -> Meeting:
    """Meet in the folder of a run, which all of them have. Raises StorageError where it is away for too long."""
    where = str(folder.workers.resolve())  # Optuna never takes a lock away that it knows by a relative path
    lock = JournalFileSymlinkLock(where, grace_period=LOCK_SECONDS)
    storage = PatientStorage(JournalStorage(JournalFile(where, lock)), Patience(where, warn), _is_away)
    return Meeting(where, storage, Board(storage, NAME))


def meet_in_database(url: str, study: str, warn: Callable[[str], None] = no_progress) -> Meeting:
    """Meet in a database. Raises UsageError, StorageError."""
    storage = open_database(url, warn)
    return Meeting(f"{url}:{study}", storage, Board(storage, study), Shelf(storage, study))


def _is_away(error: Exception) -> bool:
    return isinstance(error, OSError)
