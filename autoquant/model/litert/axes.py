"""Lets operators that only add or remove axes, and dilated convolutions, be written as those that can be INT8.

Conv1D is EXPAND_DIMS, CONV_2D and a reshape, where it is dilated inside of SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND.
LiteRT Quantizer makes neither EXPAND_DIMS nor SQUEEZE nor the last two INT8, but RESHAPE, PAD and dilated convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema

AXES = frozenset({"EXPAND_DIMS", "SQUEEZE"})
RESHAPES = AXES | {"RESHAPE"}
CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})


def as_reshapes(model: Any) -> None:
    """Let EXPAND_DIMS and SQUEEZE of float32 be RESHAPE, in place, where all sizes of the result but one are known."""
    graph = model.subgraphs[0]
    for op in graph.operators:
        if flatbuffer.op_name(model, op) not in AXES:
            continue
        result = graph.tensors[op.outputs[0]]
        shape = flatbuffer.shape_of(result)
        if result.type == schema.TensorType.FLOAT32 and shape.count(None) <= 1 and 0 not in shape:
            op.opcodeIndex = flatbuffer.operator_index(model, schema.BuiltinOperator.RESHAPE)
            flatbuffer.set_shape(model, op, [-1 if size is None else size for size in shape])


def join_dilated(model: Any) -> None:
    """Let SPACE_TO_BATCH_ND, a convolution and BATCH_TO_SPACE_ND be a dilated convolution, in place.

    That is what the converter makes of four dimensions; around the convolution of a Conv1D are three. What they compute
    stays the same, up to the order of sums.
    """
    for op in list(model.subgraphs[0].operators):
        if flatbuffer.op_name(model, op) == "SPACE_TO_BATCH_ND":
            found = _find(model, op)
            if found is not None:
                _join(found)


@dataclass(frozen=True)
class Dilated:
    """The operators (OperatorT) of a dilated convolution, in their order; `added` is the axis that a Conv1D adds."""

    model: Any
    divide: Any
    expand: Any | None
    conv: Any
    squeeze: Any | None
    gather: Any
    added: int | None

    @property
    def blocks(self) -> Array | None:
        """The dilation of each spatial axis of the data."""
        return self._constant(self.gather, 1)

    @property
    def padding(self) -> Array | None:
        """What is added before and behind the data on each spatial axis, (axes, 2), without what is cut again."""
        paddings, crops = self._constant(self.divide, 2), self._constant(self.gather, 2)
        # What is cut in front would shift the result.
        return None if paddings is None or crops is None or crops[:, 0].any() else paddings - crops

    @property
    def possible(self) -> bool:
        """Whether all is known, and the convolution has neither strides nor a padding or dilation of its own."""
        blocks, padding, first = self.blocks, self.padding, self._constant(self.divide, 1)
        if blocks is None or padding is None or first is None or not np.array_equal(first, blocks):
            return False
        options, sizes = self.conv.builtinOptions, self.shape_of(self.divide.inputs[0])[1:]
        plain = (options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor) == (1, 1, 1, 1)
        sized = self.added is None or None not in sizes
        return sized and plain and options.padding == schema.Padding.VALID and bool(padding.min() >= 0)

    def shape_of(self, tensor: int) -> tuple[int | None, ...]:
        """The shape that a tensor states."""
        return flatbuffer.shape_of(self.model.subgraphs[0].tensors[tensor])

    def _constant(self, op: Any, place: int) -> Array | None:
        return flatbuffer.value_of(self.model, self.model.subgraphs[0].tensors[op.inputs[place]])


def _find(model: Any, divide: Any) -> Dilated | None:
    """The dilated convolution that begins with a SPACE_TO_BATCH_ND, if it is one and can be joined."""
    chain, wanted = [divide], [RESHAPES, CONVOLUTIONS, RESHAPES, frozenset({"BATCH_TO_SPACE_ND"})]
    if len(flatbuffer.shape_of(model.subgraphs[0].tensors[divide.inputs[0]])) == 4:
        wanted = wanted[1::2]
    for kinds in wanted:
        reader = _only_reader(model, chain[-1])
        if reader is None or flatbuffer.op_name(model, reader) not in kinds:
            return None
        chain.append(reader)
    if len(chain) == 3:
        found = Dilated(model, divide, None, chain[1], None, chain[2], None)
    else:
        added = _added_axis(model, chain[1], chain[3])
        if added is None:
            return None
        _, expand, conv, squeeze, gather = chain
        found = Dilated(model, divide, expand, conv, squeeze, gather, added)
    return found if found.possible else None


def _only_reader(model: Any, op: Any) -> Any | None:
    """The operator that alone reads the result of another one, as its data."""
    graph, (result,) = model.subgraphs[0], op.outputs
    readers = [reader for reader in graph.operators if result in list(reader.inputs)]
    alone = len(readers) == 1 and result not in list(graph.outputs)
    return readers[0] if alone and readers[0].inputs[0] == result else None


def _added_axis(model: Any, expand: Any, squeeze: Any) -> int | None:
    """The axis of size 1 that one reshape adds and another takes away again; None where they do anything else."""
    tensors = model.subgraphs[0].tensors
    flat, full = (flatbuffer.shape_of(tensors[index]) for index in (expand.inputs[0], expand.outputs[0]))
    after, end = (flatbuffer.shape_of(tensors[index]) for index in (squeeze.inputs[0], squeeze.outputs[0]))
    for axis in (1, 2):
        if _without(full, axis) == flat and _without(after, axis) == end:
            return axis
    return None


def _without(shape: Sequence[int | None], axis: int) -> tuple[int | None, ...] | None:
    return (*shape[:axis], *shape[axis + 1 :]) if len(shape) == 4 and shape[axis] == 1 else None


def _with(shape: Sequence[int | None], axis: int | None) -> tuple[int | None, ...]:
    return tuple(shape) if axis is None else (*shape[:axis], 1, *shape[axis:])


def _join(found: Dilated) -> None:
    graph, (result,) = found.model.subgraphs[0], found.gather.outputs
    data = _pad(found)
    if found.expand is None or found.squeeze is None:
        found.conv.inputs = [data, *map(int, found.conv.inputs[1:])]
        found.conv.outputs = [result]
    else:
        found.expand.inputs = [data, *map(int, found.expand.inputs[1:])]
        found.squeeze.outputs = [result]
        _reshape(found, found.expand, _with(found.shape_of(data), found.added))
        _state_shape(graph.tensors[found.conv.outputs[0]], _with(found.shape_of(result), found.added))
        _reshape(found, found.squeeze, found.shape_of(result))
    _dilate(found)
    gone = [found.gather] if flatbuffer.op_name(found.model, found.divide) == "PAD" else [found.divide, found.gather]
    graph.operators = [op for op in graph.operators if all(op is not other for other in gone)]


def _pad(found: Dilated) -> int:
    """The data with what is added to them, by a PAD in the place of SPACE_TO_BATCH_ND where that is anything."""
    graph, data, padding = found.model.subgraphs[0], int(found.divide.inputs[0]), found.padding
    assert padding is not None
    if not padding.any():
        return data
    every = np.zeros((len(found.shape_of(data)), 2), np.int32)
    every[1 : 1 + len(padding)] = padding
    (padded,) = map(int, found.divide.outputs)
    sizes = zip(found.shape_of(data), every.sum(axis=1).tolist(), strict=True)
    _state_shape(graph.tensors[padded], [None if size is None else size + more for size, more in sizes])
    name = flatbuffer.tensor_name(graph.tensors[padded]) + "/paddings"
    found.divide.inputs = [data, flatbuffer.add_constant(found.model, graph, name, every)]
    found.divide.opcodeIndex = flatbuffer.operator_index(found.model, schema.BuiltinOperator.PAD)
    found.divide.builtinOptionsType, found.divide.builtinOptions = (
        schema.BuiltinOptions.PadOptions,
        schema.PadOptionsT(),
    )
    return padded


def _dilate(found: Dilated) -> None:
    assert found.blocks is not None
    factors = found.blocks.tolist()
    if found.added is not None:
        factors.insert(found.added - 1, 1)
    options = found.conv.builtinOptions = copy(found.conv.builtinOptions)
    options.dilationHFactor, options.dilationWFactor = factors


def _reshape(found: Dilated, op: Any, shape: Sequence[int | None]) -> None:
    """Let an operator be a RESHAPE to a shape of which only the batch may be open."""
    _state_shape(found.model.subgraphs[0].tensors[op.outputs[0]], shape)
    op.opcodeIndex = flatbuffer.operator_index(found.model, schema.BuiltinOperator.RESHAPE)
    flatbuffer.set_shape(found.model, op, [-1 if size is None else size for size in shape])


def _state_shape(tensor: Any, shape: Sequence[int | None]) -> None:
    tensor.shape = [1 if size is None else size for size in shape]
    tensor.shapeSignature = [-1 if size is None else size for size in shape] if None in shape else None
