"""Where the study of a run is: in the journal of its folder, or in a database that workers elsewhere reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial

from autoquant.errors import RunError, UsageError, listed
from autoquant.quiet import no_progress
from autoquant.tuning.study.databases import open_database
from autoquant.tuning.study.journal import Journal, add_ended, open_study, unannounced
from autoquant.tuning.study.patient_storage import PatientStorage
from autoquant.tuning.study.run_folder import RunFolder

IDENTITY = "autoquant:run"
"""The system attribute of a study in a database that says which run it is of."""


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
    identity: str = "",
    warn: Callable[[str], None] = no_progress,
) -> StudyStore:
    """The study of this name in a database; where there is none it is made of trials that have `ended`.

    There were so many trials. Raises RunError where it is of another run, by the `identity`, or has fewer.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        _check_study(storage, study, identity, count=count)
    except KeyError:
        if count:
            warn(
                f"the study '{name}' is not in the storage any more, and is made again of the {len(ended)} trials here"
            )
        with unannounced():
            study = optuna.create_study(study_name=name, storage=storage, direction="minimize")
        if identity:
            storage.set_study_system_attr(study._study_id, IDENTITY, identity)
        add_ended(study, ended, count=count)
    return StudyStore(f"the study '{name}'", study, storage, storage.together)


def check_moved(folder: RunFolder, asked: Mapping[str, Any], url: str) -> None:
    """Raise RunError where another database than the `asked` one does not have the study of a run, with all its trials.

    Raises UsageError where the run has none in a database, StorageError where that is not there.
    """
    if not asked.get("storage"):
        raise UsageError("--storage", f"{folder.path} has its own journal", hint="leave it out")
    if url == asked["storage"]:
        return
    name, identity, count = asked["study"], folder.identity(), max(folder.trials(), default=-1) + 1
    with closing(open_database(url)) as storage:
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            there = sorted(one.study_name for one in storage.get_all_studies())
            found = f"there is no study '{name}'" + (f", but {listed(there)}" if there else "")
            raise RunError(f"--storage {url}", found, hint="restore the dump of its database there first") from None
        _check_study(storage, study, identity, count=count, where=f"--storage {url}")


def _check_study(
    storage: PatientStorage, study: optuna.Study, identity: str, *, count: int, where: str = "storage"
) -> None:
    """Raise RunError where a study is of another run, or does not have all trials of this one."""
    name, found = study.study_name, storage.get_study_system_attrs(study._study_id).get(IDENTITY, "")
    if identity and found and found != identity:
        what = f"the study '{name}' there is of another run"
        raise RunError(where, what, hint="give the storage that has the study of this one")
    if (trials := len(study.get_trials(deepcopy=False))) < count:
        what = f"the study '{name}' there has {trials} trials, and the folder of the run {count}"
        raise RunError(where, what, hint="it is an older copy: restore a newer one")


def refuse_existing_study(url: str, name: str) -> None:
    """Raise RunError where a study of this name is in a database; UsageError, StorageError where that is not there."""
    with closing(open_database(url)) as storage, suppress(KeyError):
        storage.get_study_id_from_name(name)
        hint = "`autoquant resume` goes on with its run; or choose another --study"
        raise RunError(f"{url}:{name}", "exists already", hint=hint)
