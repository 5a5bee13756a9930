"""Why layers of the best plan are in float: the trials that had them in INT8, and what became of those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autoquant.model.names import is_tensor
from autoquant.reports.plan_changes import distance, same_settings
from autoquant.tuning.study.trial import State, Trial


class Why(StrEnum):
    """Why a layer is in float: a plan with it in INT8 is out of tolerance or was set aside, failed for its sake, ..."""

    OUT = "out"
    FAILED = "failed"
    NO_BETTER = "no better"
    UNTRIED = "untried"
    NEVER = "never"


@dataclass(frozen=True)
class FloatLayer:
    """A float layer of the best plan.

    `why` it is in float, and `trial` shows that: one with it in INT8 that is out of tolerance or set aside, failed for
    its sake, or is within tolerance and no better by the objective. Without a trial, none had it in INT8 beside most of
    the best plan's layers, or none at all. `without` are layers that the best plan has in INT8 and that trial has not,
    `beside` others that only that trial has; `alike` says that all else is as in the best plan.
    """

    name: str
    why: Why
    trial: Trial | None = None
    without: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    alike: bool = False

    @property
    def exact(self) -> bool:
        """Whether the trial differs from the best plan in this layer alone."""
        return self.alike and not self.without and not self.beside


def float_layers(trials: Sequence[Trial], best: Trial, allowed: float) -> tuple[FloatLayer, ...]:
    """The float layers of the best plan, in its order; inputs of operators are none."""
    names = [name for name, settings in best.plan.layers.items() if settings is None and not is_tensor(name)]
    return tuple(_float_layer(name, trials, best, allowed) for name in names)


def _float_layer(name: str, trials: Sequence[Trial], best: Trial, allowed: float) -> FloatLayer:
    """One that differs from the best in this layer alone tells most, then a failure, then the smallest difference.

    Of equals, what was only set aside tells least.
    """
    having = [trial for trial in trials if name in trial.plan.int8]
    if not having:
        return FloatLayer(name, Why.NEVER)
    shown = [one for trial in having if (one := _shown(name, trial, best, allowed)) is not None]

    def rank(one: FloatLayer) -> tuple[bool, bool, int, int, bool, int]:
        assert one.trial is not None
        differing = len(one.without) + len(one.beside)
        far = distance(one.trial.plan, best.plan)
        return not one.exact, one.why is not Why.FAILED, differing, far, one.trial.undecided, one.trial.number

    return min(shown, key=rank, default=FloatLayer(name, Why.UNTRIED))


def _shown(name: str, trial: Trial, best: Trial, allowed: float) -> FloatLayer | None:
    """What a trial with the layer in INT8 shows; None where it shows nothing."""
    why = _why(name, trial, allowed)
    mine, kept = trial.plan.int8, best.plan.int8
    without = tuple(layer for layer in kept if layer not in mine)
    beside = tuple(layer for layer in mine if layer not in kept and layer != name)
    telling = {Why.FAILED: True, Why.OUT: 2 * len(without) <= len(kept), Why.NO_BETTER: not without}
    if why is None or not telling[why]:
        return None
    return FloatLayer(name, why, trial, without, beside, same_settings(trial.plan, best.plan))


def _why(name: str, trial: Trial, allowed: float) -> Why | None:
    """What became of a trial; None where that is open, or has to do with another layer."""
    if trial.state is State.FAILED:
        return Why.FAILED if trial.at_fault == name else None
    if trial.state is State.DONE:
        return Why.NO_BETTER if trial.meets(allowed) else Why.OUT
    if trial.undecided:
        return Why.OUT
    return {True: Why.NO_BETTER, False: Why.OUT, None: None}[trial.within]
