"""A run explained from its trials: the best plan and its cost, the effect of settings, why layers are in float.

Its folder is read without the model, the study or TensorFlow, also while a search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.errors import RunError
from autoquant.formats.codec import encode, file_facts
from autoquant.model.operators import is_tensor
from autoquant.reports.ablations import (
    FloatFallbackEffect,
    SettingEffect,
    float_fallback_effects,
    ranked_pairs,
    setting_effects,
)
from autoquant.reports.plan_changes import distance, same_settings
from autoquant.tuning.certification.certificate import Certificate, load_certificate
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import SCORE, State, Terms, Trial, best, load_trial

PARTS = ("quantize", "calibrate", "save", "load", "score")
"""What a trial takes time for, in order."""


class NoTrialYet(RunError):
    """A run of which no trial has ended."""


@dataclass(frozen=True)
class Explanation:
    """A run explained.

    `settings` and `float_fallbacks` are measured differences between two trials, the largest first: of each kind the
    one closest to the best plan. `float_layers` are those of the best plan.
    """

    run: RunTrials
    settings: tuple[SettingEffect, ...]
    float_fallbacks: tuple[FloatFallbackEffect, ...]
    float_layers: tuple[FloatLayer, ...]

    def __repr__(self) -> str:
        found = f"{len(self.settings)} settings, {len(self.float_fallbacks)} float layers measured"
        return f"<Explanation of {self.run.run}: {len(self.run.trials)} trials, {found}, best {self.run.best!r}>"

    def facts(self) -> dict[str, Any]:
        """What `explain --json` prints. Drops are in units of the metric; what is not known is null."""
        run = self.run
        return {
            "version": 1,
            "run": str(run.run),
            **encode(run.terms),
            "best": run.best.facts() if run.best else None,
            "certificate": file_facts(run.certificate) if run.certificate else None,
            "trials": len(run.trials),
            "unended_trials": run.unended,
            "damaged": list(run.damaged),
            "evaluated_samples": run.samples,
            "seconds": dict(run.seconds),
            "settings": [one.facts() for one in self.settings],
            "float_fallbacks": [one.facts() for one in self.float_fallbacks],
            "float_layers": [one.facts() for one in self.float_layers],
            "float_operators": sorted(run.best.plan.float_operators or ()) if run.best else [],
        }


def explain_trials(run: RunTrials) -> Explanation:
    """Explain what was read. Trials that failed are compared with none; without a best, no layer is explained."""
    pairs = ranked_pairs(run.trials, run.best)
    in_float = () if run.best is None else float_layers(run.trials, run.best, run.terms.max_drop)
    settings, fallbacks = setting_effects(pairs, run.best), float_fallback_effects(pairs, run.best)
    return Explanation(run, tuple(settings), tuple(fallbacks), in_float)


@dataclass(frozen=True)
class RunTrials:
    """The trials of a run that ended, by number; there is at least one.

    `best` is the one that the run keeps, None where none came to its end. `unended` counts those that were begun and
    have no score: they go on, or were cut off. `damaged` says what of which trials could not be read.
    """

    run: Path
    terms: Terms
    trials: tuple[Trial, ...]
    best: Trial | None
    unended: int = 0
    certificate: Certificate | None = None
    damaged: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Samples that all trials evaluated, the baseline not counted."""
        return sum(trial.samples for trial in self.trials)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The machines whose workers carried trials out."""
        return tuple(sorted({trial.host for trial in self.trials if trial.host}))

    @property
    def seconds(self) -> Mapping[str, float]:
        """What all trials took, by part, in the order of PARTS, others behind."""
        names = dict.fromkeys([*PARTS, *(part for trial in self.trials for part in trial.seconds)])
        total = {part: sum(trial.seconds.get(part, 0.0) for trial in self.trials) for part in names}
        return MappingProxyType({part: spent for part, spent in total.items() if spent})


def read_trials(run: Path, load: Callable[[Path], tuple[Trial, Terms]] = load_trial) -> RunTrials:
    """Read a run, but for trials whose files are damaged; `load` reads the folder of a trial.

    Raises RunError where there is no run, no trial of it has ended (NoTrialYet), or none is left.
    """
    folder = RunFolder(run)
    folder.require_run()
    folders = sorted((run / "trials").glob("[0-9]*"))
    ended = [path for path in folders if (path / SCORE).is_file()]
    if not ended:
        raise NoTrialYet(str(run), "no trial of it has ended yet", hint=f"wait, or go on with `autoquant resume {run}`")
    loaded, damaged = list[tuple[Trial, Terms]](), list[RunError]()
    for path in ended:
        try:
            loaded.append(load(path))
        except RunError as error:
            damaged.append(error)
    if not loaded:
        raise damaged[0]
    loaded.sort(key=lambda pair: pair[0].number)
    trials, (terms, *_) = zip(*loaded, strict=True)
    pointed = folder.best.resolve().name  # in a copy without links, to nothing
    linked = next((trial for trial in trials if folder.trial(trial.number).name == pointed), None)
    best_trial = linked or best(trials, terms.max_drop)
    claimed = folder.trial(best_trial.number) / CERTIFICATE if best_trial else None
    certificate = load_certificate(claimed) if claimed and claimed.is_file() else None
    told = tuple(map(str, damaged))
    return RunTrials(run, terms, trials, best_trial, len(folders) - len(ended), certificate, told)


class Reason(StrEnum):
    """Why a layer is in float, by what trials with it in INT8 show."""

    NOT_WITHIN = "not within tolerance"
    FAILED = "failed"
    NO_BETTER = "no better"
    UNTRIED = "untried"
    NEVER = "never"


@dataclass(frozen=True)
class FloatLayer:
    """A float layer of the best plan.

    The `trial` behind the `reason` has it in INT8, and is not within tolerance or undecided, failed because of it, or
    is within tolerance and no better by the objective. Without a trial, none had it in INT8 beside most of the best
    plan's layers (UNTRIED), or none at all (NEVER). Other layers are in INT8 only in the best plan, or only in that
    trial; `same_settings` says that all else is as in the best plan.
    """

    name: str
    reason: Reason
    trial: Trial | None = None
    int8_only_in_best: tuple[str, ...] = ()
    int8_only_in_trial: tuple[str, ...] = ()
    same_settings: bool = False

    @property
    def isolated(self) -> bool:
        """Whether the trial differs from the best plan in this layer alone."""
        return self.same_settings and not self.int8_only_in_best and not self.int8_only_in_trial

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**encode(self), "trial": self.trial.facts() if self.trial else None}


def float_layers(trials: Sequence[Trial], best: Trial, max_drop: float) -> tuple[FloatLayer, ...]:
    """The float layers of the best plan, in its order; inputs of operators are none."""
    names = [name for name, settings in best.plan.layers.items() if settings is None and not is_tensor(name)]
    return tuple(_float_layer(name, trials, best, max_drop) for name in names)


def _float_layer(name: str, trials: Sequence[Trial], best: Trial, max_drop: float) -> FloatLayer:
    """One that differs from the best in this layer alone tells most, then a failure, then the smallest difference.

    Of equals, what was undecided tells least.
    """
    having = [trial for trial in trials if name in trial.plan.int8]
    if not having:
        return FloatLayer(name, Reason.NEVER)
    shown = [one for trial in having if (one := _shown(name, trial, best, max_drop)) is not None]

    def rank(one: FloatLayer) -> tuple[bool, bool, int, int, bool, int]:
        assert one.trial is not None
        differing = len(one.int8_only_in_best) + len(one.int8_only_in_trial)
        far = distance(one.trial.plan, best.plan)
        failed = one.reason is Reason.FAILED
        return not one.isolated, not failed, differing, far, one.trial.undecided, one.trial.number

    return min(shown, key=rank, default=FloatLayer(name, Reason.UNTRIED))


def _shown(name: str, trial: Trial, best: Trial, max_drop: float) -> FloatLayer | None:
    """What a trial with the layer in INT8 shows; None where it shows nothing."""
    reason = _reason(name, trial, max_drop)
    mine, others = trial.plan.int8, best.plan.int8
    only_best = tuple(layer for layer in others if layer not in mine)
    only_trial = tuple(layer for layer in mine if layer not in others and layer != name)
    conclusive = {
        Reason.FAILED: True,
        Reason.NOT_WITHIN: 2 * len(only_best) <= len(others),
        Reason.NO_BETTER: not only_best,
    }
    if reason is None or not conclusive[reason]:
        return None
    return FloatLayer(name, reason, trial, only_best, only_trial, same_settings(trial.plan, best.plan))


def _reason(name: str, trial: Trial, max_drop: float) -> Reason | None:
    """How a trial ended; None where that is not known, or has to do with another layer."""
    if trial.state is State.FAILED:
        return Reason.FAILED if trial.at_fault == name else None
    if trial.state is State.DONE:
        return Reason.NO_BETTER if trial.meets(max_drop) else Reason.NOT_WITHIN
    if trial.undecided:
        return Reason.NOT_WITHIN
    return {True: Reason.NO_BETTER, False: Reason.NOT_WITHIN, None: None}[trial.within]
