"""What LiteRT's interpreter says of a model: whether it runs, and the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Shape, one_sample_shapes


def plain_interpreter(content: bytes) -> Any:
    """An interpreter without XNNPACK, in which every tensor of the file exists and keeps its value.

    Raises ValueError for what LiteRT does not read.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )


def run(interpreter: Any, values: Sequence[Array]) -> None:
    """Make room for values of these shapes, in the order of the file's inputs, set them, and run.

    Raises RuntimeError or ValueError, as LiteRT does, where the model does not take them or does not run.
    """
    indices = [detail["index"] for detail in interpreter.get_input_details()]
    for index, value in zip(indices, values, strict=True):
        interpreter.resize_tensor_input(index, value.shape)
    interpreter.allocate_tensors()
    for index, value in zip(indices, values, strict=True):
        interpreter.set_tensor(index, value)
    interpreter.invoke()


def sentence(error: Exception) -> str:
    """What LiteRT says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def stated_shapes(lite: LiteGraph) -> Mapping[str, Shape]:
    """Shapes of the inputs as the file states them; sizes that are open are None."""
    return dict(zip(lite.inputs, map(lite.shape_of, lite.subgraph.inputs), strict=True))


def tensor_shapes(
    lite: LiteGraph, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
) -> tuple[Shape, ...]:
    """Shape of each tensor by index, for one sample where the batch is open.

    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose sizes the file leaves open. Where a
    size stays unknown, shapes are those of the file, with None for what is open. Raises ModelError where the shapes
    contradict the file, or LiteRT cannot run the model.
    """
    wanted = one_sample_shapes(stated_shapes(lite), input_shapes)
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
