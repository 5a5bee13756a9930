"""How models are scored and compared, as a search and an evaluation are asked for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.errors import UsageError
from autoquant.evaluation.metrics.table import check_metric
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.tuning.study.choices import check_min_baseline
from autoquant.tuning.study.model_request import ModelOptions, ModelRequest, plain


class ScoreOptions(ModelOptions, total=False):
    """The fields of a ScoreRequest, but the tolerances, for the signatures of functions that pass them on."""

    metric: str | Callable[..., Any]
    guard: str
    unit: str
    confidence: float
    min_baseline: float | None
    junit: str | Path


@dataclass(frozen=True, kw_only=True)
class ScoreRequest(ModelRequest):
    """How a model is scored on the data, and what is claimed of the difference to FP32.

    `metric` is a name or a function, `tolerance` how much worse than FP32 a score may be. `guard` holds every class
    ('class'), or every group that is named like a unit, to `guard_tolerance`, by default the tolerance. `unit` names
    what says which samples belong together, such as the patient of an image: an array of the data or of a function's
    batches, a feature of TFRecords, or a regular expression of the paths of images. Bounds are of independent units,
    and hold with probability `confidence`. BaselineError is raised where FP32 scores worse than `min_baseline`. `junit`
    is a file for verdict, groups and gates as test cases.
    """

    metric: str | Callable[..., Any] = "top1"
    tolerance: Tolerance | None = None
    guard: str = ""
    guard_tolerance: Tolerance | None = None
    unit: str = ""
    confidence: float = 0.95
    min_baseline: float | None = None
    junit: str | Path = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("confidence", "min_baseline"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        for name in ("tolerance", "guard_tolerance"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, Tolerance.parse(given))
        check_probability("--confidence", self.confidence, example=0.95)
        check_min_baseline(self.min_baseline)
        if self.guard_tolerance is not None and not self.guard:
            raise UsageError("--guard-tolerance", "needs a guard", hint="give --guard class as well")

    def check_named(self) -> None:
        """Raise InputError for names of what is not there, of the metric too."""
        super().check_named()
        check_metric(self.metric)


def check_probability(option: str, value: float, *, example: float) -> None:
    """Raise UsageError for what is none, or certain."""
    if not 0.0 < value < 1.0:  # NaN fails too
        raise UsageError(option, f"must be above 0 and below 1, got {value:g}", hint=f"for example {example:g}")
