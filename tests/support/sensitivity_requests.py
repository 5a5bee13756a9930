"""Sensitivity requests about graphs made in a test, calibrated on their samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.calibration.plan import LayerPlan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.sensitivity.request import SensitivityRequest
from autoquant.tuning.study.workload import Workload

BATCH = 64


def opened(folder: Path, write: Callable[..., Any], shape: tuple[int | None, ...]) -> Model:
    """A frozen graph of one input `x`; `write` gives its outputs, which become `y`, `y_1` and so on."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        made = write(tf, tf.compat.v1.placeholder(tf.float32, shape, name="x"))
        outputs = made if isinstance(made, tuple) else (made,)
        names = [tf.identity(output, name="y").op.name for output in outputs]
    path = folder / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return open_model(path, outputs=names)


def sensitivity_request(model: Model, x: Any, *, target: str = "tensorflow", **options: Any) -> SensitivityRequest:
    """About every layer and tensor, quantized by its largest values, unless `candidates` are given."""
    data = open_data((np.asarray(x, np.float32), None), model.inputs)
    own = open_target(target)
    layers = Workload.of(own, model, data).layers
    statistics = CalibrationRunner(open_engine(TARGETS[target].runtime), data, BATCH).statistics(
        model,
        layers,
        [-(-len(data) // BATCH)],
        tensors=own.tensors(model, layers),
        balanced=[name for name, layer in layers.items() if layer.can.balanceable],
    )
    candidates = {name: [layer_plan(layer, LayerPlan(MinMax()))] for name, layer in layers.items()}
    asked: dict[str, Any] = {
        "model": model,
        "layers": layers,
        "candidates": candidates,
        "statistics": statistics,
        "data": data,
    }
    return SensitivityRequest(**(asked | options))
