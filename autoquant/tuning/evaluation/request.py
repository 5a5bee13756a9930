"""What is asked of an evaluation: models, data, metric, and what is to be claimed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.errors import UsageError
from autoquant.tuning.evaluation.files import model_file
from autoquant.tuning.study.score_request import ScoreOptions, ScoreRequest


class EvaluateOptions(ScoreOptions, total=False):
    """The fields of an EvaluateRequest that have a default, for the signatures of functions that pass them on."""

    tolerance: Any
    guard_tolerance: Any
    certify: str | Path | None


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(ScoreRequest):
    """How models are scored and compared with the first.

    With a `tolerance` there is a verdict. `certify` is a folder for the certificate of the one model that is compared
    with the first: it claims that the samples had no part in making that model.
    """

    certify: str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def _of_pairs(self) -> Iterator[tuple[str, Any]]:
        yield from (("--tolerance", self.tolerance), ("--guard", self.guard), ("--certify", self.certify))
