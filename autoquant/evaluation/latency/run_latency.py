"""The latency of a run's best model beside that of the float model, measured when the search is over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.latency.latency import Latency
from autoquant.model.model import Model, is_lite
from autoquant.model.operators import canonical
from autoquant.targets.table import open_target

if TYPE_CHECKING:
    from autoquant.model.litert.graph import LiteGraph

FLOAT, INT8 = "FP32", "INT8"
"""What the two models are called."""


def run_latency(model: Model, evaluation: Dataset, best: Path) -> Latency | None:
    """Time the float model and the file of a plan on real samples, on one thread; None for a file of another runtime.

    It takes some seconds, as `RoundsBudget` has it. Raises ModelError where a file cannot be run.
    """
    if not is_lite(best):
        return None
    from autoquant.evaluation.latency.operators import measure_latency

    lite = lite_of(model)
    models = {FLOAT: lite.content, INT8: best.read_bytes()}
    return measure_latency(models, one_batch(model, evaluation), layers=layer_of(lite))


def lite_of(model: Model) -> LiteGraph:
    """The float .tflite of a model, converted where it is one of TensorFlow. Raises ModelError."""
    from autoquant.model.litert.graph import LiteGraph

    program = open_target("litert").lowered(model).program
    assert isinstance(program, LiteGraph)
    return program


def layer_of(lite: LiteGraph) -> Mapping[str, str]:
    """Tensor -> the layer that makes it."""
    from autoquant.model.litert.flatbuffer import tensor_name

    graph = lite.subgraph
    made = {name: graph.tensors[graph.operators[index].outputs[0]] for name, index in lite.layers.items()}
    return {canonical(tensor_name(tensor)): name for name, tensor in made.items()}


def one_batch(model: Model, evaluation: Dataset) -> list[Array]:
    """The first sample for each input, or as many as a model of a fixed batch size takes."""
    size = next((spec.shape[0] for spec in model.inputs if spec.shape and spec.shape[0]), 1)
    batch = next(evaluation.batches(size))
    return [batch.inputs[name] for name in model.program.inputs]
