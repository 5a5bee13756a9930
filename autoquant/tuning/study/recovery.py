"""A run that is opened again: what its journal has lost is in the folders of its trials, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoquant.errors import PlanError, RunError
from autoquant.files import writing
from autoquant.formats.config_json import NO_LAYERS, load_config, save_config
from autoquant.model.layer import Layer
from autoquant.tuning.study.journal import ended_trial, mend_journal
from autoquant.tuning.study.patient_storage import PatientStorage
from autoquant.tuning.study.run_folder import CONFIG, RunFolder
from autoquant.tuning.study.space import Choice, Suggestion
from autoquant.tuning.study.stores import database_store, journal_store
from autoquant.tuning.study.study import Sampler, Space, Study, distributions_of
from autoquant.tuning.study.trial import State, Terms, Trial, load_trial, write_score


def open_recovered(
    folder: RunFolder,
    space: Space,
    sampler: Sampler,
    *,
    max_drop: float,
    starts: Iterable[Suggestion],
    warn: Callable[[str], None],
    metric: str,
    minimized: str,
    storage: PatientStorage | None = None,
    name: str = "",
    identity: str = "",
    on_workers: bool = False,
) -> Study:
    """The study of a run, with every trial that ended by its journal or its folder.

    In a `storage` it has a `name` there, and the `identity` of the run, and is made again of the folders where it is
    lost.
    """
    folders = folder.trials()
    stored = dict(_stored(folders, space.dimensions))
    count, distributions = max(folders, default=-1) + 1, distributions_of(space.dimensions)
    if storage is None:
        known: dict[str, Any] = {"count": count, "max_drop": max_drop, "metric": metric}
        mend_journal(folder.journal, stored, distributions, **known, warn=warn)
        store = journal_store(folder.journal, warn)
    else:
        ended = {number: ended_trial(trial, distributions, max_drop, metric) for number, trial in stored.items()}
        store = database_store(storage, name, ended=ended, count=count, identity=identity, warn=warn)
    return Study(
        store,
        space,
        sampler,
        max_drop=max_drop,
        starts=starts,
        stored=stored,
        metric=metric,
        minimized=minimized,
        on_workers=on_workers,
    )


def restore_folders(folder: RunFolder, study: Study, terms: Terms, *, layers: Mapping[str, Layer] = NO_LAYERS) -> None:
    """Write config.json and score.json again for trials that have lost them, as far as the study knows.

    `layers` are those of the model. The plan of such a config.json leaves open what building chooses. Of the
    best trial only score.json is: the rest is built again (tuning/restore.py).
    """
    for trial in study.trials():
        own = folder.trial(trial.number)
        try:
            load_trial(own)
            continue
        except RunError:
            with writing(own):
                own.mkdir(parents=True, exist_ok=True)
        if study.best == trial and trial.digests:  # its other files are compared with these, and built again
            write_score(own, trial, terms)
            continue
        with suppress(PlanError):
            if load_config(own / CONFIG).int8.keys() == trial.plan.int8.keys():
                write_score(own, trial, terms)
                continue
        save_config(trial.plan, own / CONFIG, layers=layers)
        write_score(own, trial, terms)


def _stored(folders: Mapping[int, Path], dimensions: Mapping[str, tuple[Choice, ...]]) -> Iterator[tuple[int, Trial]]:
    """The trials whose folders say how they ended, at a point of this space."""
    for number, path in folders.items():
        try:
            trial, _ = load_trial(path)
        except RunError:  # what the journal knows of it is written there again
            continue
        point = trial.parameters
        known = point.keys() == dimensions.keys() and all(point[name] in own for name, own in dimensions.items())
        if known and trial.number == number and trial.state is not State.RUNNING:
            yield number, trial
