"""What a run's folder tells of its trials: read without the model, the study or TensorFlow, while a search goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from autoquant.errors import RunError
from autoquant.tuning.certification.certificate import Certificate, load_certificate
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.score_json import SCORE, Terms, load_trial
from autoquant.tuning.study.trial import Trial, best

PARTS = ("quantize", "calibrate", "save", "load", "score")
"""What a trial takes time for, in order."""


@dataclass(frozen=True)
class RunTrials:
    """The trials of a run that ended, by number; there is at least one.

    `best` is the one that the run keeps, None where none came to its end. `unended` counts those that were begun and
    have no score: they go on, or were cut off.
    """

    run: Path
    terms: Terms
    trials: tuple[Trial, ...]
    best: Trial | None
    unended: int = 0
    certificate: Certificate | None = None

    @property
    def samples(self) -> int:
        """Samples that all trials evaluated, the baseline not counted."""
        return sum(trial.samples for trial in self.trials)

    @property
    def seconds(self) -> Mapping[str, float]:
        """What all trials took, by part, in the order of PARTS, others behind."""
        names = dict.fromkeys([*PARTS, *(part for trial in self.trials for part in trial.seconds)])
        total = {part: sum(trial.seconds.get(part, 0.0) for trial in self.trials) for part in names}
        return MappingProxyType({part: spent for part, spent in total.items() if spent})


def read_trials(run: Path) -> RunTrials:
    """Read a run. Raises RunError where there is none, no trial of it has ended, or a file of one is damaged."""
    folder = RunFolder(run)
    folder.require_run()
    folders = sorted((run / "trials").glob("[0-9]*"))
    ended = [path for path in folders if (path / SCORE).is_file()]
    if not ended:
        raise RunError(str(run), "no trial of it has ended yet", hint=f"wait, or go on with `autoquant resume {run}`")
    loaded = sorted(map(load_trial, ended), key=lambda pair: pair[0].number)
    trials, (terms, *_) = zip(*loaded, strict=True)
    best_trial = _best_trial(folder, trials, terms.max_drop)
    certificate = _certificate(folder.trial(best_trial.number)) if best_trial else None
    return RunTrials(run, terms, trials, best_trial, len(folders) - len(ended), certificate)


def _best_trial(folder: RunFolder, trials: Sequence[Trial], max_drop: float) -> Trial | None:
    """The trial that `best` points to; else, as in a copy without links, the best one."""
    pointed = folder.best.resolve().name
    linked = next((trial for trial in trials if folder.trial(trial.number).name == pointed), None)
    return linked or best(trials, max_drop)


def _certificate(trial: Path) -> Certificate | None:
    """What is claimed of a trial, None where nothing is. Raises RunError."""
    path = trial / CERTIFICATE
    return load_certificate(path) if path.is_file() else None
