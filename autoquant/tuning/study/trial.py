"""A trial: one plan through the whole cycle, and the best of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoquant.calibration.plan import Plan
from autoquant.evaluation.statistics.tolerance import within
from autoquant.model.names import is_tensor


class State(StrEnum):
    """How a trial ended."""

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan through the whole cycle.

    `score` and `drop` are in units of the metric. A trial that was stopped early has no score, and its drop is an
    estimate, between `low` and `high` at its share of the error rate, or None where it was only to be compared with
    others. `within` says whether the drop is within tolerance, None where that is open. Where it was `set_aside`, few
    samples alone cost more than is allowed (streaming.py), and the estimate is of what was seen. `losses` are
    divergences from FP32 over more and more samples, the same for all trials (streaming.RUNGS), and `loss` is the last
    of these, over `loss_samples`. A trial that failed has none of these, but a `reason`, and `at_fault` is the layer
    that did it, where there is one that the search may leave in float.

    `phase` is the part of the search that proposed it, and `limit` the most samples that it was to see. `int8_share` is
    the share of multiply-adds in INT8; `objective` is what the search minimizes, 1.0 for the model all in float
    (tuning/objective.py); `boundaries` counts the operators between float and INT8, where the target puts any between
    layers; `samples` were evaluated; `seconds` by part (quantize, calibrate, save, load, score).
    """

    number: int
    state: State
    plan: Plan
    why: str
    int8_layers: int
    int8_share: float
    objective: float
    score: float | None = None
    drop: float | None = None
    samples: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    at_fault: str = ""
    boundaries: int | None = None
    low: float | None = None
    high: float | None = None
    within: bool | None = None
    loss: float | None = None
    loss_samples: int = 0
    losses: tuple[float, ...] = ()
    phase: str = ""
    limit: int | None = None

    @property
    def layers(self) -> int:
        """All layers of the plan, INT8 and float."""
        return count_layers(self.plan.layers)

    @property
    def set_aside(self) -> bool:
        """Whether it was stopped without a proof, though not only compared with others."""
        return self.state is State.STOPPED and self.drop is not None and self.within is None

    def meets(self, allowed: float) -> bool:
        """Whether its drop is allowed, on everything; never if it failed or was stopped."""
        return self.state is State.DONE and self.drop is not None and within(self.drop, allowed)

    def __post_init__(self) -> None:
        if self.state is State.DONE and (self.drop is None or self.drop != self.drop):
            raise ValueError("a trial that is done has a drop, which is a number")


def count_layers(names: Iterable[str]) -> int:
    """How many of the names in a plan are layers; inputs of operators are none."""
    return sum(not is_tensor(name) for name in names)


def best(trials: Iterable[Trial], allowed: float) -> Trial | None:
    """The trial to keep: the lowest objective within the allowed drop; ties go to the smaller drop, the earlier.

    When none is within, the one that comes closest, by the estimate where it was stopped; ties go to the lower
    objective, the earlier. One that was stopped and may be within is none to keep, as that is not known.
    """
    done = [trial for trial in trials if trial.drop is not None and (trial.state is State.DONE or not trial.within)]

    def rank(trial: Trial) -> tuple[bool, float, float, int]:
        assert trial.drop is not None
        if trial.meets(allowed):
            return True, -trial.objective, -trial.drop, -trial.number
        return False, -trial.drop, -trial.objective, -trial.number

    return max(done, key=rank, default=None)
