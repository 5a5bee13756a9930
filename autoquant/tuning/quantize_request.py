"""What is asked of the application of a plan: model, plan, data, and where to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autoquant.errors import UsageError
from autoquant.formats.config_json import load_config
from autoquant.model.model import check_file
from autoquant.tuning.evaluation.request import EvaluateRequest
from autoquant.tuning.study.choices import FLOAT32, TENSORFLOW, check_target
from autoquant.tuning.study.model_request import ModelOptions, ModelRequest


class QuantizeOptions(ModelOptions, total=False):
    """The fields of a QuantizeRequest that have a default, for the signatures of functions that pass them on."""

    target: str
    io: str
    profile: str
    integer_only: bool
    simulation: bool
    data: Any
    metric: str | Callable[..., Any]
    tolerance: Any


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest(ModelRequest):
    """The plan of a `config` for a `model`, calibrated on `calibration`, and the folder `to` for what is made.

    `target`, `io`, `profile` and `simulation` are as of `open_target`. With `data` the model that was made is compared
    on it with the float model, by `metric` and perhaps a `tolerance`, as an EvaluateRequest has them.
    """

    model: str | Path
    config: str | Path
    to: str | Path
    data: Any = None
    target: str = TENSORFLOW
    io: str = FLOAT32
    profile: str = ""
    integer_only: bool = False
    simulation: bool = True
    metric: str | Callable[..., Any] = "top1"
    tolerance: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target(
            self.model,
            target=self.target,
            io=self.io,
            simulation=self.simulation,
            profile=self.profile,
            integer_only=self.integer_only,
        )
        if self.data is None and self.tolerance is not None:
            raise UsageError("--tolerance", "is of a score, and nothing is scored", hint="give --data to score it on")

    def check_named(self) -> None:
        """Raise InputError for names of what is not there, of the model, the config and the metric too."""
        check_file(self.model)
        load_config(Path(self.config))
        super().check_named()
        if (evaluation := self.evaluation()) is not None:
            evaluation.check_named()

    def evaluation(self) -> EvaluateRequest | None:
        """The request that compares the float model with what was made of it; None without data for that."""
        if self.data is None:
            return None
        own = {entry.name for entry in fields(self)} - {"calibration"}
        return EvaluateRequest(
            **{one.name: getattr(self, one.name) for one in fields(EvaluateRequest) if one.name in own}
        )
