"""Shapes of all tensors of a .tflite for one sample, as LiteRT itself works them out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import plain_interpreter, run, sentence
from autoquant.model.model import Shape, shape_for_one_sample


def stated_shapes(lite: LiteGraph) -> Mapping[str, Shape]:
    """Shapes of the inputs as the file states them; sizes that are open are None."""
    tensors = [lite.subgraph.tensors[index] for index in lite.subgraph.inputs]
    return dict(zip(lite.inputs, map(flatbuffer.shape_of, tensors), strict=True))


def tensor_shapes(
    lite: LiteGraph, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
) -> tuple[Shape, ...]:
    """Shape of each tensor by index, for one sample where the batch is open.

    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose sizes the file leaves open. Where a
    size stays unknown, shapes are those of the file, with None for what is open. Raises ModelError where the shapes
    contradict the file, or LiteRT cannot run the model.
    """
    stated = stated_shapes(lite)
    for name in input_shapes:
        if name not in stated:
            raise ModelError(
                name, "a shape is given but this is not an input", hint=f"inputs: {', '.join(lite.inputs)}"
            )
    wanted = {name: shape_for_one_sample(name, shape, input_shapes.get(name)) for name, shape in stated.items()}
    sizes = {name: tuple(size for size in shape or () if size is not None) for name, shape in wanted.items()}
    if any(len(sizes[name]) < len(shape or ()) for name, shape in wanted.items()):
        return tuple(map(flatbuffer.shape_of, lite.subgraph.tensors))
    return _allocated(lite, sizes)


def _allocated(lite: LiteGraph, sizes: Mapping[str, tuple[int, ...]]) -> tuple[Shape, ...]:
    """The shapes after a run on zeros: only that settles those that depend on values."""
    interpreter = plain_interpreter(lite.content)
    dtypes = [detail["dtype"] for detail in interpreter.get_input_details()]
    try:
        run(interpreter, [np.zeros(sizes[name], dtype) for name, dtype in zip(lite.inputs, dtypes, strict=True)])
    except (RuntimeError, ValueError) as error:
        raise ModelError("model", f"LiteRT cannot run it: {sentence(error)}", hint=f"inputs were {sizes}") from error
    shapes = {int(one["index"]): tuple(map(int, one["shape"])) for one in interpreter.get_tensor_details()}
    return tuple(shapes.get(index, ()) for index in range(len(lite.subgraph.tensors)))
