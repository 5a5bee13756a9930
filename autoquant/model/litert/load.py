"""Float .tflite files, opened without TensorFlow."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.batch import with_open_batch
from autoquant.model.litert.checks import check_float, check_inputs, check_operators, check_sound
from autoquant.model.litert.flatbuffer import DTYPES, shape_of, tensor_name
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import plain_interpreter, sentence
from autoquant.model.litert.kinds import KINDS
from autoquant.model.litert.shapes import tensor_shapes
from autoquant.model.litert.signatures import keep_signature
from autoquant.model.litert.tidy import tidy
from autoquant.model.model import InputSpec, Model

IDENTIFIER = b"TFL3"
WHOLE = "is the file whole, and a float .tflite?"


def load_lite(path: Path, *, signature: str | None = None) -> Model:
    """Open a float .tflite; `signature` chooses among several.

    The batch is open where the model allows that, whatever the file says. Raises ModelError where the file is none, or
    is damaged or quantized already, where it has several signatures and none is chosen, and where it has operators that
    LiteRT does not know or that hold subgraphs.
    """
    content = _content(path)
    model = _objects(path, content)
    check_sound(model, where=str(path))
    inputs, outputs = keep_signature(model, signature, where=str(path))
    check_inputs(model, inputs, where=str(path))
    check_operators(model, where=str(path))
    check_float(model, where=str(path))
    del model.subgraphs[1:]  # only control flow, and signatures that were not chosen, need those
    tidy(model)
    with_open_batch(model)
    lite = LiteGraph(flatbuffer.write(model), inputs, outputs, _layers(model))
    tensor_shapes(lite)  # whatever LiteRT refuses is found here, not in the middle of a run
    return Model(path.resolve().stem, lite, _specs(lite), hashlib.sha256(content).hexdigest())


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(str(path), "there is no such file", hint="a float .tflite is expected") from error
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=WHOLE) from error
    if content[4:8] != IDENTIFIER:
        what = "is empty" if not content else "is not a .tflite: the mark TFL3 is not at its beginning"
        raise ModelError(str(path), what, hint="convert the model again")
    return content


def _objects(path: Path, content: bytes) -> Any:
    """The objects of a file that LiteRT has verified."""
    try:
        plain_interpreter(content)
    except ValueError as error:
        raise ModelError(str(path), f"is damaged or cut short: {sentence(error)}", hint=WHOLE) from error
    try:
        return flatbuffer.read(content)
    except (struct.error, IndexError, TypeError, ValueError) as error:  # what LiteRT does not look at
        raise ModelError(str(path), f"is damaged: {sentence(error)}", hint=WHOLE) from error


def _layers(model: Any) -> dict[str, int]:
    """Index of each operator that is a layer by its kind, called as its result is."""
    graph = model.subgraphs[0]
    return {
        tensor_name(graph.tensors[op.outputs[0]]): index
        for index, op in enumerate(graph.operators)
        if flatbuffer.op_name(model, op) in KINDS
    }


def _specs(lite: LiteGraph) -> tuple[InputSpec, ...]:
    tensors = [lite.subgraph.tensors[index] for index in lite.subgraph.inputs]
    return tuple(
        InputSpec(name, DTYPES[tensor.type], shape_of(tensor))
        for name, tensor in zip(lite.inputs, tensors, strict=True)
    )
