"""What a search minimizes: a number for each plan, 1.0 for the model all in float. A new one is a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from types import MappingProxyType

from autoquant.calibration.plan import Plan
from autoquant.errors import UsageError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.model.layer import Layer
from autoquant.tuning.builder import Builder
from autoquant.tuning.study.choices import BYTES, LATENCY, MACS
from autoquant.tuning.study.space import SearchSpace
from autoquant.tuning.study.workload import Objective, Workload

FLOAT_BYTES, BIAS_BYTES = 4, 4
"""Bytes of a weight in float32, and of a bias, which is float32 or int32."""


@dataclass(frozen=True)
class Macs:
    """The share of multiply-adds left in float, as the workload counts them.

    `fullest` has all in INT8 that may be; None where a search must not end as soon as it has as little in float.
    """

    workload: Workload
    fullest: Plan | None
    name: str = MACS

    @property
    def lowest(self) -> float:
        """That of the fullest plan."""
        return -inf if self.fullest is None else self(self.fullest)

    def __call__(self, plan: Plan) -> float:
        """Of a plan."""
        return 1.0 - self.workload.int8_share(plan)


@dataclass(frozen=True)
class Bytes:
    """The bytes of all layers' weights and biases, relative to those in float; raises UsageError where there are none.

    A weight takes one byte in INT8, whatever bits it has, and four in float; a bias four.
    """

    layers: Mapping[str, Layer]
    fullest: Plan
    name: str = BYTES

    def __post_init__(self) -> None:
        if not any(layer.parameters for layer in self.layers.values()):
            raise UsageError(f"--objective {BYTES}", "no layer of the model has a weight", hint=f"give {MACS}")

    @property
    def lowest(self) -> float:
        """That of the fullest plan."""
        return self(self.fullest)

    def __call__(self, plan: Plan) -> float:
        """Of a plan."""
        in_float = sum(_bytes(layer, FLOAT_BYTES) for layer in self.layers.values())
        planned = sum(_bytes(layer, 1 if name in plan.int8 else FLOAT_BYTES) for name, layer in self.layers.items())
        return planned / in_float


def _bytes(layer: Layer, size: int) -> int:
    weights = prod(layer.weight_shape) if layer.weight else 0
    return weights * size + (layer.parameters - weights) * BIAS_BYTES


def open_objective(
    name: str, builder: Builder, space: SearchSpace, evaluation: Dataset, *, io: str, cache: Path
) -> Objective:
    """The objective of this name; for latency it is measured first, which takes seconds, unless `cache` has it.

    Raises UsageError where it says nothing of this model, PlanError or TrialError where nothing can be measured.
    """
    return OBJECTIVES[name](builder, space, evaluation, io, cache)


def _macs(builder: Builder, space: SearchSpace, *_: object) -> Objective:
    return Macs(builder.workload, space.fullest)


def _weight_bytes(builder: Builder, space: SearchSpace, *_: object) -> Objective:
    return Bytes(builder.workload.layers, space.fullest)


def _latency(builder: Builder, space: SearchSpace, evaluation: Dataset, io: str, cache: Path) -> Objective:
    from autoquant.tuning.latency_objective import open_latency

    return open_latency(builder, space, evaluation, io=io, cache=cache)


OBJECTIVES: Mapping[str, Callable[[Builder, SearchSpace, Dataset, str, Path], Objective]] = MappingProxyType(
    {MACS: _macs, BYTES: _weight_bytes, LATENCY: _latency}
)
"""Name -> how to make it."""
