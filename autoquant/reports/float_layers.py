"""Why layers of the best plan are in float: the trials that had them in INT8, and how those ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autoquant.formats.codec import encode
from autoquant.model.operators import is_tensor
from autoquant.reports.plan_changes import distance, same_settings
from autoquant.tuning.study.trial import State, Trial


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
