"""Makes a .tflite fit to be quantized: own names, own weights, shapes that are constants, nothing that is unused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from functools import partial
from itertools import count
from math import prod
from typing import Any

from autoquant.model.litert import flatbuffer
from autoquant.model.litert.axes import as_reshapes, join_dilated
from autoquant.model.litert.kinds import KINDS
from autoquant.model.operators import canonical

STATELESS = frozenset(
    {"ADD", "CAST", "CONCATENATION", "GATHER", "MUL", "PACK", "RANK", "REDUCE_PROD", "RESHAPE", "SHAPE", "SLICE"}
    | {"SQUEEZE", "STRIDED_SLICE", "SUB", "UNPACK"}
)
"""Operators that shapes are computed with; without a reader they do nothing."""


def tidy(model: Any) -> None:
    """Change the objects of a file in place; what its first subgraph computes stays the same, to the bit.

    But for sums of dilated convolutions in another order, see `axes`.

    Tensors that share a name, or have none, get another one, and none has a colon. Layers that share a constant get one
    each, and so does the first subgraph, of those that others have too. A reshape whose shape is worked out from that
    of its data, as flattening is written, gets a constant shape, as SHAPE would ask for float data where INT8 is.
    Operators and tensors that nothing needs go.
    """
    _part_from_functions(model)
    for graph in model.subgraphs:
        _own_constants(model, graph)
    join_dilated(model)
    as_reshapes(model)
    _fix_reshapes(model)
    flatbuffer.drop_unread(model.subgraphs[0], lambda op: flatbuffer.op_name(model, op) in STATELESS)
    for graph in model.subgraphs:
        drop_unused_tensors(model, graph)
    _drop_unused_buffers(model)
    _name_apart(tensor for graph in model.subgraphs for tensor in graph.tensors)


def _name_apart(tensors: Iterable[Any]) -> None:
    taken: set[str] = set()
    numbers: defaultdict[str, Iterator[int]] = defaultdict(partial(count, 1))  # for each name, as many can share one
    for tensor in tensors:
        # A colon would make the name of a layer that of an operator's input.
        name = wanted = canonical(flatbuffer.tensor_name(tensor)).replace(":", "_") or "tensor"
        while name in taken:
            name = f"{wanted}_{next(numbers[wanted])}"
        taken.add(name)
        tensor.name = name.encode()


def _part_from_functions(model: Any) -> None:
    """Give the first subgraph buffers of its own for constants that others have too, as those of loops stay float."""
    others = {tensor.buffer for graph in model.subgraphs[1:] for tensor in graph.tensors}
    for tensor in model.subgraphs[0].tensors:
        if tensor.buffer in others and flatbuffer.value_of(model, tensor) is not None:
            tensor.buffer = flatbuffer.add_buffer(model, model.buffers[tensor.buffer].data)


def _own_constants(model: Any, graph: Any) -> None:
    """Give each layer weights and biases that nothing else reads, in buffers of their own: one may be INT8, one not."""
    readers = Counter(int(index) for op in graph.operators for index in set(op.inputs))
    buffers = Counter(tensor.buffer for tensor in graph.tensors)
    for op in graph.operators:
        kind = KINDS.get(flatbuffer.op_name(model, op))
        for place in (kind.weight, kind.bias) if kind is not None else ():
            index = flatbuffer.input_of(op, place)
            if index is None:
                continue
            tensor = graph.tensors[index]
            if flatbuffer.value_of(model, tensor) is None or (readers[index] == 1 and buffers[tensor.buffer] == 1):
                continue
            own = copy(tensor)
            own.buffer = flatbuffer.add_buffer(model, model.buffers[tensor.buffer].data)
            if readers[index] == 1:
                graph.tensors[index] = own
                buffers[tensor.buffer] -= 1
            else:
                graph.tensors.append(own)
                op.inputs = [len(graph.tensors) - 1 if at == place else int(i) for at, i in enumerate(op.inputs)]
                readers[index] -= 1


def _fix_reshapes(model: Any) -> None:
    graph = model.subgraphs[0]
    makers = {int(tensor): op for op in graph.operators for tensor in op.outputs}
    for op in graph.operators:
        if flatbuffer.op_name(model, op) != "RESHAPE" or len(op.inputs) < 2:
            continue
        if flatbuffer.value_of(model, graph.tensors[op.inputs[1]]) is not None:
            continue
        shape = _constant_shape(model, graph, op, makers)
        if shape is not None:
            flatbuffer.set_shape(model, op, shape)


def _constant_shape(model: Any, graph: Any, op: Any, makers: Mapping[int, Any]) -> tuple[int, ...] | None:
    """The shape that a reshape has for every batch, -1 for what is open; None where that takes more than one -1.

    The count of values is given, so where all sizes but one are known, that one is.
    """
    stated = flatbuffer.shape_of(graph.tensors[op.outputs[0]])
    if sum(size is None for size in stated) == 1 and 0 not in stated:
        return tuple(-1 if size is None else size for size in stated)
    maker = makers.get(int(op.inputs[1]))
    if maker is None or flatbuffer.op_name(model, maker) != "PACK":
        return None
    values = [flatbuffer.value_of(model, graph.tensors[index]) for index in maker.inputs]
    sizes = [-1 if value is None else int(value.item()) for value in values]
    data = flatbuffer.shape_of(graph.tensors[op.inputs[0]])
    if sizes.count(-1) == 2 and values[0] is None and _is_batch_of(model, graph, makers, maker.inputs[0], op.inputs[0]):
        rest = [size or 0 for size in data[1:]]  # the batch stays, so -1 is what is left of the rest
        known = prod(size for size in sizes if size != -1)
        if 0 not in rest and known > 0:
            sizes = [sizes[0], *(prod(rest) // known if size == -1 else size for size in sizes[1:])]
    # A size that is worked out may be no batch, but nothing else fits either.
    return tuple(sizes) if sizes.count(-1) == 1 and min(sizes) == -1 and 0 not in sizes else None


def _is_batch_of(model: Any, graph: Any, makers: Mapping[int, Any], size: int, data: int) -> bool:
    """Whether a number is the first one of the shape of a tensor."""
    part = makers.get(int(size))
    if part is None or flatbuffer.op_name(model, part) != "STRIDED_SLICE":
        return False
    bounds = [flatbuffer.value_of(model, graph.tensors[index]) for index in part.inputs[1:4]]
    whole = makers.get(int(part.inputs[0]))
    shape_of_data = whole is not None and flatbuffer.op_name(model, whole) == "SHAPE" and int(whole.inputs[0]) == data
    first = [value is not None and value.tolist() == [want] for value, want in zip(bounds, (0, 1, 1), strict=True)]
    return shape_of_data and all(first) and part.builtinOptions.shrinkAxisMask == 1


def drop_unused_tensors(model: Any, graph: Any) -> None:
    """Take the tensors out of a subgraph that nothing in it reads or makes."""
    used = {int(index) for op in graph.operators for index in (*op.inputs, *op.outputs, *_or_none(op.intermediates))}
    used |= {int(index) for index in (*graph.inputs, *graph.outputs)}
    order = sorted(used - {-1})
    place = {-1: -1} | {old: new for new, old in enumerate(order)}

    def moved(indices: Iterable[int]) -> list[int]:
        return [place[int(index)] for index in indices]

    graph.tensors = [graph.tensors[index] for index in order]
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for op in graph.operators:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
        if op.intermediates is not None:
            op.intermediates = moved(op.intermediates)
    number = next(number for number, other in enumerate(model.subgraphs) if other is graph)
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == number:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = place[entry.tensorIndex]


def _drop_unused_buffers(model: Any) -> None:
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or ()}
    order = sorted(used | {0})  # the first is empty, and that of every tensor without a value
    place = {old: new for new, old in enumerate(order)}
    model.buffers = [model.buffers[index] for index in order]
    for holder in (*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or ())):
        holder.buffer = place[holder.buffer]


def _or_none(indices: Iterable[int] | None) -> Iterable[int]:
    return () if indices is None else indices
