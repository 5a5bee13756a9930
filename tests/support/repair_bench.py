"""A small network of every kind of layer on both targets, for what repairs it: its plans, and their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import Builder, builder_of_plan
from autoquant.tuning.repairs.corrections import Repairs
from autoquant.tuning.study.workload import Workload

LAYERS = ("conv", "depthwise", "dense")
COUNT = 40


@dataclass(frozen=True)
class Bench:
    """A target with the model that it lowered, and what builds its plans."""

    runtime: str
    model: Model
    data: Dataset
    builder: Builder

    def plan(
        self, *int8: str, bias_correction: str = "none", weight_rounding: str = "nearest", **settings: Any
    ) -> Plan:
        layers = self.builder.workload.layers
        plans = {
            name: layer_plan(layers[name], LayerPlan(MinMax(), **settings)) if name in int8 else None for name in LAYERS
        }
        return Plan(plans, 1, bias_correction=bias_correction, weight_rounding=weight_rounding)

    @property
    def repairs(self) -> Repairs:
        assert self.builder.repairs is not None
        return self.builder.repairs

    def corrections(self, plan: Plan) -> Any:
        return self.repairs.corrector.corrections(plan, self.model, self.builder.prepared(plan).compiler).biases

    def run(self, path: Path, x: Any) -> Any:
        runner = open_engine(self.runtime).open_file(path, self.model.program)
        found = runner({"x": x})["y"]
        runner.close()
        return found


class Untouchable:
    """An engine that must not be needed."""

    name = "untouchable"

    def __init__(self, version: str) -> None:
        self.version = version

    def open_graph(self, *arguments: Any) -> Any:
        raise AssertionError("it was computed again")


def made_bench(target_name: str, file: Path, x: Any) -> Bench:
    target, opened = open_target(target_name), open_model(file)
    runtime = TARGETS[target_name].runtime
    model = target.lowered(opened)
    data = open_data((x, None), opened.inputs)
    workload = Workload.of(target, model, data)
    able = {name: layer_plan(layer, LayerPlan(MinMax(), dmq=0.5)) for name, layer in workload.layers.items()}
    builder = builder_of_plan(Plan(able), model, workload, target, open_engine(runtime), data, batch_size=len(x))
    return Bench(runtime, model, data, builder)


def convolved(x: Any, weight: Any) -> Any:
    """VALID, stride 1."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[:2], axis=(1, 2))
    return np.einsum("nhwikl,klio->nhwo", windows, weight)


def each_convolved(x: Any, weight: Any) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[:2], axis=(1, 2))
    return np.einsum("nhwikl,kli->nhwi", windows, weight[..., 0])


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "conv": convolved,
    "depthwise": each_convolved,
    "dense": lambda x, weight: x.reshape(len(x), -1) @ weight,
}
