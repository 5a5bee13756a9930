"""What came out: of a trial, and of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.model.layers import is_tensor
from autoquant.tuning.tolerance import within


class State(StrEnum):
    """How a trial ended."""

    DONE = "done"
    FAILED = "failed"


class Verdict(StrEnum):
    """Whether the tolerance was met."""

    MET = "met"
    MISSED = "missed"


class Ended(StrEnum):
    """Why a search ended."""

    NOTHING_BETTER = "within tolerance with every layer in INT8 that may be: nothing better is left to try"
    TARGET = "stopped at the first trial within tolerance"
    TRIALS = "the trials are used"
    TIMEOUT = "no time is left for another trial"
    NOTHING_NEW = "nothing new was proposed any more"
    FAILURES = "ten trials failed in a row"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan through the whole cycle.

    `score` and `drop` are in units of the metric, None when it failed, with `reason` saying why, and `at_fault` the
    layer that did it, where there is one that the search may leave in float. `int8_share` is the share of multiply-adds
    in INT8; `samples` were evaluated; `seconds` by part (quantize, calibrate, save, load, score).
    """

    number: int
    state: State
    plan: Plan
    why: str
    int8_layers: int
    int8_share: float
    score: float | None = None
    drop: float | None = None
    samples: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    at_fault: str = ""

    @property
    def layers(self) -> int:
        """All layers of the plan, INT8 and float."""
        return count_layers(self.plan.layers)

    def meets(self, allowed: float) -> bool:
        """Whether its drop is allowed; never if it failed."""
        return self.drop is not None and within(self.drop, allowed)

    def __post_init__(self) -> None:
        if self.state is State.DONE and (self.drop is None or self.drop != self.drop):
            raise ValueError("a trial that is done has a drop, which is a number")


def count_layers(names: Iterable[str]) -> int:
    """How many of the names in a plan are layers; inputs of operators are none."""
    return sum(not is_tensor(name) for name in names)


def best(trials: Iterable[Trial], allowed: float) -> Trial | None:
    """The trial to keep: most INT8 multiply-adds within the allowed drop; ties go to the smaller drop, the earlier.

    When none is within, the one that comes closest; ties go to more INT8, the earlier.
    """
    done = [trial for trial in trials if trial.state is State.DONE and trial.drop is not None]

    def rank(trial: Trial) -> tuple[bool, float, float, int]:
        assert trial.drop is not None
        if trial.meets(allowed):
            return True, trial.int8_share, -trial.drop, -trial.number
        return False, -trial.drop, trial.int8_share, -trial.number

    return max(done, key=rank, default=None)


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Scores, `drop` and `tolerance` (absolute) are in units of the metric; `limit` is the worst score within tolerance.
    `unit` is what shares are shares of: multiply-adds, or parameters where those are not known. `model` is the best
    INT8 model on disk, None when no trial succeeded; `costly` are the layers of a best plan that missed, with the
    relative error of the output (Euclidean norm) when that layer alone is INT8, largest first; `warnings` what a person
    should know of the result.
    """

    verdict: Verdict
    metric: str
    baseline: float
    tolerance: float
    limit: float
    best: Trial | None
    trials: tuple[Trial, ...]
    layers: int
    seconds: float
    model: Path | None
    run: Path
    ended: Ended
    unit: str = "multiply-adds"
    costly: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """Score of the best trial."""
        return self.best.score if self.best else None

    @property
    def drop(self) -> float | None:
        """How much worse than the baseline the best trial is."""
        return self.best.drop if self.best else None

    @property
    def evaluated_samples(self) -> int:
        """Samples evaluated by trials, the baseline not counted."""
        return sum(trial.samples for trial in self.trials)
