"""Where the study of a run is: in the journal of its folder, or in a database that workers elsewhere reach."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError

from autoquant.errors import RunError
from autoquant.quiet import no_progress
from autoquant.tuning.study.journal import Journal, open_study, unannounced
from autoquant.tuning.study.patient_storage import PatientStorage


@dataclass(frozen=True)
class StudyStore:
    """A study of Optuna, and `where` it is, for people; what is recorded within `together` is one write."""

    where: str
    study: optuna.Study
    together: Callable[[], AbstractContextManager[None]]


def journal_store(path: Path, warn: Callable[[str], None] = no_progress) -> StudyStore:
    """The study in the journal of a run, which is made where there is none."""
    journal = Journal(path, warn)
    return StudyStore(str(path), open_study(journal), journal.together)


def database_store(storage: PatientStorage, url: str, name: str, *, begun: bool) -> StudyStore:
    """The study of this name in a database, which is made for a run that has not `begun`.

    Raises RunError where one that has begun is not there, or one that has not is.
    """
    where = f"{url}:{name}"
    with unannounced():
        if begun:
            try:
                study = optuna.load_study(study_name=name, storage=storage)
            except KeyError:
                hint = "give the storage that the search was started with, or start a new run"
                raise RunError(where, "there is no such study", hint=hint) from None
        else:
            try:
                study = optuna.create_study(study_name=name, storage=storage, direction="minimize")
            except DuplicatedStudyError:
                hint = "`autoquant resume` goes on with its run; or choose another --study"
                raise RunError(where, "exists already", hint=hint) from None
    return StudyStore(where, study, storage.together)
