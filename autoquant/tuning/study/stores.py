"""Where the study of a run is: in the journal of its folder, or in a database that workers elsewhere reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial

from autoquant.errors import RunError
from autoquant.quiet import no_progress
from autoquant.tuning.study.databases import open_database
from autoquant.tuning.study.journal import Journal, add_ended, open_study, unannounced
from autoquant.tuning.study.patient_storage import PatientStorage


@dataclass(frozen=True)
class StudyStore:
    """A study of Optuna in its storage; `where` it is, for people; what is recorded within `together` is one write."""

    where: str
    study: optuna.Study
    storage: BaseStorage
    together: Callable[[], AbstractContextManager[None]]


def journal_store(path: Path, warn: Callable[[str], None] = no_progress) -> StudyStore:
    """The study in the journal of a run, which is made where there is none."""
    journal = Journal(path, warn)
    storage = JournalStorage(journal)
    return StudyStore(str(path), open_study(storage), storage, journal.together)


def database_store(
    storage: PatientStorage,
    name: str,
    *,
    ended: Mapping[int, FrozenTrial],
    count: int,
    warn: Callable[[str], None] = no_progress,
) -> StudyStore:
    """The study of this name in a database; where there is none it is made of trials that have `ended`.

    There were so many trials.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        if count:
            warn(
                f"the study '{name}' is not in the storage any more, and is made again of the {len(ended)} trials here"
            )
        with unannounced():
            study = optuna.create_study(study_name=name, storage=storage, direction="minimize")
        add_ended(study, ended, count=count)
    return StudyStore(f"the study '{name}'", study, storage, storage.together)


def refuse_existing_study(url: str, name: str) -> None:
    """Raise RunError where a study of this name is in a database; UsageError, StorageError where that is not there."""
    with closing(open_database(url)) as storage, suppress(KeyError):
        storage.get_study_id_from_name(name)
        hint = "`autoquant resume` goes on with its run; or choose another --study"
        raise RunError(f"{url}:{name}", "exists already", hint=hint)
