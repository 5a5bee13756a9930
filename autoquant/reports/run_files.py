"""All that the folder of a run says about it, read without the model, TensorFlow or the Optuna study.

Files that earlier versions did not write, or a search not yet, are None or empty here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoquant.array import Array
from autoquant.errors import RunError
from autoquant.evaluation.scoring.changes import SampleChanges
from autoquant.reports.explanation import NoTrialYet, RunTrials, read_trials
from autoquant.tuning.overview import Overview, load_overview
from autoquant.tuning.phases import Phases, load_phases
from autoquant.tuning.pictures import load_changes, load_pictures
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import SCORE, Terms, Trial, load_trial

MODELS = ("*.pb", "*.tflite")
"""The files of a model in the folder of a trial, its front included."""


@dataclass(frozen=True)
class RunFiles:
    """A run as its folder has it.

    `request`, `digests` and `versions` are tables of run.toml. `trials` is None where none has ended, `result` what
    result.json says of just these trials, None where the search has not come to its end. `going_on`: a process works
    on it. `int8_bytes` is the size of the best model's file.
    """

    folder: RunFolder
    request: Mapping[str, Any]
    digests: Mapping[str, str]
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    trials: RunTrials | None
    overview: Overview | None
    result: Mapping[str, Any] | None
    changes: SampleChanges | None
    pictures: Mapping[int, Array]
    phases: Phases
    going_on: bool
    int8_bytes: int | None = None

    @property
    def terms(self) -> Terms | None:
        """What trials share; None where no trial has ended, and there is no overview."""
        return self.trials.terms if self.trials else self.overview.terms if self.overview else None

    @property
    def best(self) -> Trial | None:
        """The best trial."""
        return self.trials.best if self.trials else None


@dataclass
class RunReader:
    """Reads a run, again and again while it goes on: of a trial that ended nothing is read twice."""

    folder: RunFolder
    _known: dict[Path, tuple[int, tuple[Trial, Terms]]] = field(default_factory=dict)

    def read(self, *, going_on: bool | None = None) -> RunFiles:
        """Read what is new; `going_on` says whether a process works on the run, where that is known.

        Raises RunError where there is no run, or a file of it is damaged.
        """
        folder = self.folder
        folder.require_run()
        table = folder.read_request()
        try:
            trials = read_trials(folder.path, self._trial)
        except NoTrialYet:
            trials = None
        working = folder.is_locked() if going_on is None else going_on
        best = folder.trial(trials.best.number) if trials and trials.best else None
        return RunFiles(
            folder=folder,
            request=table["request"],
            digests=table["digests"],
            versions=table.get("versions", {}),
            notes=tuple(table.get("model", {}).get("notes", ())),
            trials=trials,
            overview=load_overview(folder),
            result=None if working or trials is None else _result(folder, trials),
            changes=load_changes(best) if best else None,
            pictures=load_pictures(folder.pictures),
            phases=load_phases(folder.phases),
            going_on=working,
            int8_bytes=_model_bytes(best) if best else None,
        )

    def _trial(self, folder: Path) -> tuple[Trial, Terms]:
        stamp = (folder / SCORE).stat().st_mtime_ns
        known = self._known.get(folder)
        if known is None or known[0] != stamp:
            known = self._known[folder] = stamp, load_trial(folder)
        return known[1]


def _result(folder: RunFolder, trials: RunTrials) -> Mapping[str, Any] | None:
    """What result.json says; None where it is not there, or of fewer trials than there are now."""
    if not folder.result.is_file():
        return None
    try:
        found = json.loads(folder.result.read_text(encoding="utf-8"), parse_constant=_refuse)
        return found if found["trials"] >= len(trials.trials) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(str(folder.result), f"cannot be read ({error})", hint="remove it, or resume the run") from None


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _model_bytes(folder: Path) -> int | None:
    """The size of the model in the folder of a trial; None where it is gone."""
    files = [file for pattern in MODELS for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in files) if files else None
