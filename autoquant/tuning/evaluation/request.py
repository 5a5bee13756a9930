"""What is asked of an evaluation: models, data, metric, and what is to be claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.errors import UsageError
from autoquant.evaluation.metrics.table import check_metric
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.tuning.evaluation.files import model_file
from autoquant.tuning.study.choices import check_min_baseline
from autoquant.tuning.study.model_request import ModelOptions, ModelRequest


class EvaluateOptions(ModelOptions, total=False):
    """The fields of an EvaluateRequest that have a default, for the signatures of functions that pass them on."""

    metric: str | Callable[..., Any]
    tolerance: Any
    guard: str
    guard_tolerance: Any
    unit: str
    confidence: float
    certify: str | Path | None
    junit: str | Path
    min_baseline: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(ModelRequest):
    """How models are scored and compared, as a SearchRequest has it.

    With a `tolerance` there is a verdict. `certify` is a folder for the certificate of the one model that is compared
    with the first: it claims that the samples had no part in making that model. `junit` is a file for verdicts and
    groups as test cases. BaselineError is raised where the first model scores worse than `min_baseline`.
    """

    metric: str | Callable[..., Any] = "top1"
    tolerance: Tolerance | None = None
    guard: str = ""
    guard_tolerance: Tolerance | None = None
    unit: str = ""
    confidence: float = 0.95
    certify: str | Path | None = None
    junit: str | Path = ""
    min_baseline: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tolerance", "guard_tolerance"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, Tolerance.parse(given))
        if not 0.0 < self.confidence < 1.0:  # NaN fails too
            what = f"must be above 0 and below 1, got {self.confidence:g}"
            raise UsageError("--confidence", what, hint="for example 0.95")
        check_min_baseline(self.min_baseline)
        if self.guard_tolerance is not None and not self.guard:
            raise UsageError("--guard-tolerance", "needs a guard", hint="give --guard class as well")
        if self.certify is not None and self.tolerance is None:
            raise UsageError("--certify", "needs a tolerance to certify", hint="give --tolerance, for example 1%")

    def check_models(self, models: Sequence[str | Path]) -> list[Path]:
        """The files of the models. Raises UsageError for none, for one twice, or for what is asked of fewer or more."""
        if not models:
            raise UsageError("MODEL", "there is none", hint="give one model or more, the FP32 one first")
        paths = [model_file(model) for model in models]
        if len({path.resolve() for path in paths}) < len(paths):
            raise UsageError("MODEL", "one appears twice", hint="give each model once")
        others = [option for option, given in self._of_pairs() if given]
        if len(paths) < 2 and others:
            raise UsageError(others[0], "compares models, and there is one", hint="give the FP32 model first")
        if len(paths) > 2 and self.certify is not None:
            what = f"certifies one model, and {len(paths) - 1} are compared: choosing among them by the same samples"
            raise UsageError("--certify", f"{what} would flatter the best", hint="give the FP32 model and that one")
        return paths

    def check_named(self) -> None:
        """Raise InputError for names of what is not there, of the metric too."""
        super().check_named()
        check_metric(self.metric)

    def _of_pairs(self) -> Iterator[tuple[str, Any]]:
        yield from (("--tolerance", self.tolerance), ("--guard", self.guard), ("--certify", self.certify))
