"""What LiteRT's interpreter says of a model: whether it runs, its tensors' shapes, whether it takes any batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Shape, one_sample_shapes

LARGE = 1 << 24
"""Numbers of an input beyond which one sample takes as long as a batch, and much memory: the file keeps its batch."""
TOLERANCE = 1e-4
"""Results of one sample alone and of the same in a batch may differ by rounding: relative to the largest of them."""


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
    _make_room(interpreter, [value.shape for value in values])
    for detail, value in zip(interpreter.get_input_details(), values, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.reset_all_variables()
    interpreter.invoke()


def _make_room(interpreter: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    for detail, shape in zip(interpreter.get_input_details(), shapes, strict=True):
        interpreter.resize_tensor_input(detail["index"], shape)
    interpreter.allocate_tensors()


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
    """The shapes after a run on zeros: only that settles those that depend on values. Large samples are not run."""
    interpreter = plain_interpreter(lite.content)
    dtypes = [detail["dtype"] for detail in interpreter.get_input_details()]
    try:
        if max(map(math.prod, sizes.values()), default=0) > LARGE:
            _make_room(interpreter, [sizes[name] for name in lite.inputs])
        else:
            run(interpreter, [np.zeros(sizes[name], dtype) for name, dtype in zip(lite.inputs, dtypes, strict=True)])
    except MemoryError:
        what = f"one sample does not fit into memory: inputs were {sizes}"
        raise ModelError("model", what, hint="are these shapes those of the model? is the file whole?") from None
    except (RuntimeError, ValueError) as error:
        raise ModelError("model", f"LiteRT cannot run it: {sentence(error)}", hint=f"inputs were {sizes}") from error
    shapes = {int(one["index"]): tuple(map(int, one["shape"])) for one in interpreter.get_tensor_details()}
    return tuple(shapes.get(index, ()) for index in range(len(lite.subgraph.tensors)))


def values_on_zeros(
    lite: LiteGraph, input_shapes: Mapping[str, tuple[int, ...]], tensors: Sequence[int]
) -> Mapping[int, Array]:
    """Values of tensors after a run on zeros, by index; without those that have none, or all where sizes are open."""
    wanted = one_sample_shapes(stated_shapes(lite), input_shapes)
    sizes = [shape for shape in wanted.values() if shape is not None and None not in shape]
    if not tensors or len(sizes) < len(wanted):
        return {}
    interpreter = plain_interpreter(lite.content)
    dtypes = [detail["dtype"] for detail in interpreter.get_input_details()]
    run(interpreter, [np.zeros([size or 0 for size in one], dtype) for one, dtype in zip(sizes, dtypes, strict=True)])
    values = {index: _value(interpreter, index) for index in tensors}
    return {index: value for index, value in values.items() if value is not None}


def with_open_batch(model: Any) -> None:
    """Open the batch of a file's objects in place, where all inputs are fixed to one sample and a batch of two gives
    what two samples give one by one; else the file stays as it is.
    """
    graph = model.subgraphs[0]
    shapes = [flatbuffer.shape_of(graph.tensors[index]) for index in graph.inputs]
    if not shapes or any(None in shape or shape[:1] != (1,) for shape in shapes):
        return
    if max(math.prod(size or 1 for size in shape) for shape in shapes) > LARGE:
        return
    opened = deepcopy(model)
    _free_reshapes(opened)
    samples = _samples(opened)
    alone = [_tensors(flatbuffer.write(model), sample) for sample in samples]
    both = _tensors(flatbuffer.write(opened), [np.concatenate(pair) for pair in zip(*samples, strict=True)])
    single = [one for one in alone if one is not None]
    if both is None or len(single) < len(alone) or not _same(graph.outputs, both, single):
        return
    for index, tensor in enumerate(opened.subgraphs[0].tensors):
        if index in both and index in single[0] and both[index].shape[:1] != single[0][index].shape[:1]:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
    model.subgraphs, model.buffers = opened.subgraphs, opened.buffers


def _free_reshapes(model: Any) -> None:
    """Let reshapes to one sample take any batch: (1, 64) becomes (-1, 64)."""
    graph = model.subgraphs[0]
    for op in graph.operators:
        if flatbuffer.op_name(model, op) != "RESHAPE" or len(op.inputs) < 2:
            continue
        shape = flatbuffer.value_of(model, graph.tensors[op.inputs[1]])
        if shape is not None and shape.ndim == 1 and shape[:1] == 1 and (shape > 0).all():
            flatbuffer.set_shape(model, op, [-1, *shape[1:]])


def _samples(model: Any) -> Sequence[Sequence[Array]]:
    """Two samples for every input: normal numbers, of whole numbers 0 and 1, which are safe as indices."""
    graph = model.subgraphs[0]
    random = np.random.default_rng(0)
    samples = []
    for number in range(2):
        tensors = [graph.tensors[index] for index in graph.inputs]
        samples.append([_values(random, flatbuffer.DTYPES[t.type], tuple(t.shape), number) for t in tensors])
    return samples


def _values(random: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], number: int) -> Array:
    drawn = random.normal(size=shape) if dtype.kind == "f" else np.full(shape, number)
    return drawn.astype(dtype)


def _tensors(content: bytes, values: Sequence[Array]) -> Mapping[int, Array] | None:
    """Every tensor after a run, by index; None where LiteRT cannot run it so."""
    interpreter = plain_interpreter(content)
    try:
        run(interpreter, values)
    except (RuntimeError, ValueError):
        return None
    found = (
        (int(detail["index"]), _value(interpreter, detail["index"])) for detail in interpreter.get_tensor_details()
    )
    return {index: value for index, value in found if value is not None}


def _value(interpreter: Any, index: int) -> Array | None:
    """A tensor after a run; None where it has no memory, as what a loop gives and nothing reads."""
    try:
        return np.asarray(interpreter.get_tensor(index))
    except ValueError:
        return None


def _same(outputs: Sequence[int], both: Mapping[int, Array], single: Sequence[Mapping[int, Array]]) -> bool:
    for index in map(int, outputs):
        if single[0][index].shape[:1] != (1,):
            return False
        apart = np.concatenate([one[index] for one in single])
        if apart.shape != both[index].shape:
            return False
        bound = TOLERANCE * max(1e-6, float(abs(apart).max(initial=0)))
        if not (abs(apart.astype(np.float64) - both[index]) <= bound).all():
            return False
    return True
