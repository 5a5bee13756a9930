"""A saved INT8 model, ready to call on arrays, with nothing of the run or the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.evaluation.data.batch import conform, kind_of, shape_text, with_plain_text
from autoquant.evaluation.data.batches import by_name
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.model import InputSpec, is_lite
from autoquant.tuning.builder import saved_front
from autoquant.tuning.study.choices import TENSORFLOW


@dataclass(frozen=True)
class Int8Model:
    """A saved model: call it with what the float model takes, preprocessed, (batch, ...), of any batch size.

    `model(x)` with one array, or a mapping by name where there are several inputs; it gives the array (batch, ...) of
    the only output, or a mapping by name. A .tflite of INT8 inputs
    and outputs takes real numbers, or integers as they are in the file, and gives real numbers. Raises DataError for
    arrays that do not fit, TrialError where the model does not run.
    """

    path: Path
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    runners: tuple[Runner, ...]

    def __call__(self, x: Any) -> Any:
        """Run one batch."""
        given = by_name(self.path.name, x, [spec.name for spec in self.inputs])
        values = {spec.name: self._fitting(np.asarray(given[spec.name]), spec) for spec in self.inputs}
        found: Mapping[str, Array] = {}
        for runner in self.runners:  # what is in front, where there is something, then the model
            found = runner(values)
            values = {**values, **found}
        return found[self.outputs[0]] if len(self.outputs) == 1 else dict(found)

    def _fitting(self, array: Array, spec: InputSpec) -> Array:
        array = with_plain_text(self.path.name, spec.name, array)
        real = array.dtype.kind == "f" and spec.dtype == np.int8
        return conform(self.path.name, array, replace(spec, dtype=np.dtype(np.float32)) if real else spec)

    def __repr__(self) -> str:
        takes = [f"{spec.name} {_shape(spec)} {kind_of(spec.dtype)}" for spec in self.inputs]
        return f"<Int8Model {self.path.name}: {', '.join(takes)} -> {', '.join(self.outputs)}>"


def _shape(spec: InputSpec) -> str:
    return shape_text(spec.shape[1:]) if spec.shape else "of any shape"


def load_int8_model(path: Path) -> Int8Model:
    """Open a saved .pb, or a .tflite with the part in front of it. Raises ModelError."""
    if not path.is_file():
        raise ModelError(str(path), "there is no such file", hint="`autoquant export` builds it again")
    if not is_lite(path):
        inputs, outputs, runner = _open_graph(path)
        return Int8Model(path, inputs, outputs, (runner,))
    inputs, outputs, runner = _open_lite(path)
    front = saved_front(path, inputs)
    if front is None:
        return Int8Model(path, inputs, outputs, (runner,))
    return Int8Model(path, front.inputs, outputs, (open_engine(TENSORFLOW).open_graph(front.graph), runner))


def _open_graph(path: Path) -> tuple[tuple[InputSpec, ...], tuple[str, ...], Runner]:
    from autoquant.evaluation.engines.tensorflow import TensorFlowRunner
    from autoquant.model.interface import find_inputs, find_outputs
    from autoquant.model.shapes import input_specs
    from autoquant.targets.saved_graph import read_saved_graph

    graph = read_saved_graph(path).graph
    graph = replace(graph, inputs=find_inputs(graph))
    outputs = find_outputs(graph)
    return input_specs(graph), outputs, TensorFlowRunner(graph.to_graph_def(), graph.inputs, outputs)


def _open_lite(path: Path) -> tuple[tuple[InputSpec, ...], tuple[str, ...], Runner]:
    from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
    from autoquant.model.litert.interpreter import plain_interpreter, sentence

    content = path.read_bytes()
    try:
        signature = plain_interpreter(content).get_signature_runner()
    except ValueError as error:
        raise ModelError(str(path), f"LiteRT refuses it: {sentence(error)}", hint="export it again") from error
    given, outputs = signature.get_input_details(), tuple(signature.get_output_details())
    shapes = {name: tuple(None if n < 0 else int(n) for n in one["shape_signature"]) for name, one in given.items()}
    inputs = tuple(InputSpec(name, np.dtype(one["dtype"]), shapes[name]) for name, one in given.items())
    return inputs, outputs, LiteRTRunner(content, tuple(given), outputs, LiteRTEngine().threads)
