"""Which values of its data the weights of a layer meet, in a graph of TensorFlow or a .tflite, and their moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.layer import Layer
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Program
from autoquant.quantization.patches import Axis, patches
from autoquant.quantization.rounding import FEW
from autoquant.threads import one_blas_thread

WAITING = 1 << 21
"""Bytes of rows that wait to be multiplied, at most, of each layer."""
TOGETHER = 256
"""Rows of a moment that are computed at once."""
AxisOf = Callable[[int], Axis]
"""Gives how a kernel moves along an axis of so many values."""
LARGEST = 8192
"""Inputs that a weight may have for each channel of the result: their moments take the square of that."""


@dataclass(frozen=True, slots=True)
class WeightInputs:
    """How to find what a weight meets: along each axis in space, or without any in rows of all that comes last.

    `channels` are those of the data that one channel of the result sees; where the data has more, these are groups.
    `data_axis` numbers the channels of the data; `transposed` says that the rows of a matrix are its columns.
    """

    space: tuple[AxisOf, ...]
    kernel: int
    channels: int
    data_axis: int = -1
    transposed: bool = False

    @property
    def count(self) -> int:
        """Weights for each channel of the result."""
        return self.kernel * self.channels

    def rows(self, data: Array, draws: Array) -> Array:
        """Some of what the weights meet, (groups, rows, count) in the order of the weights, float32.

        Of each sample as many as `draws`, (samples, each), has numbers in [0, 1) to draw them with, or all.
        """
        data = np.moveaxis(data, self.data_axis, -1)
        if self.transposed:
            data = data.swapaxes(-1, -2)
        if not self.space:
            flat = data.reshape(-1, self.channels)
            return np.asarray(flat[_chosen(len(flat), draws)][None], np.float32)
        axes = [of(size) for of, size in zip(self.space, data.shape[1:-1], strict=True)]
        total = len(data) * prod(axis.results for axis in axes)
        found = patches(data, axes, _chosen(total, draws))
        split = found.reshape(len(found), self.kernel, -1, self.channels).transpose(2, 0, 1, 3)
        return np.asarray(split.reshape(len(split), len(found), self.count), np.float32)


def _chosen(total: int, draws: Array) -> Array:
    """Numbers below `total` that belong to samples in turn: of each sample all, or those that its draws give."""
    samples, each = draws.shape
    own = total // samples
    if own <= each:
        return np.arange(total)
    return np.asarray((np.arange(samples)[:, None] * own + (draws * own).astype(np.int64)).reshape(-1))


def weight_inputs(program: Program, layer: Layer) -> WeightInputs | str:
    """What the weights of a layer of a program meet, or why their rounding cannot be compensated, as a sentence."""
    found = _of_lite(program, layer) if isinstance(program, LiteGraph) else _of_graph(program, layer)
    if isinstance(found, WeightInputs) and found.count > LARGEST:
        return f"it has {found.count:,} inputs, more than {LARGEST:,}"
    return found


UNKNOWN = "the size of its result is not known"


def _of_graph(graph: Any, layer: Layer) -> WeightInputs | str:
    from autoquant.model.nodes import attr_of, channels_first, sizes

    node, rank = graph.nodes[layer.name], layer.operator.rank
    if rank is None or rank == 2:
        return WeightInputs((), 1, layer.weight_shape[layer.operator.input_axis])
    kernel, first = layer.weight_shape[: rank - 2], channels_first(node)
    strides, dilations = sizes(node, "strides"), sizes(node, "dilations") or (1,) * len(kernel)
    padding = attr_of(node, "padding").s.decode()
    pairs = np.reshape(attr_of(node, "explicit_paddings").list.i, (-1, 2))
    inside = pairs[2:] if first else pairs[1:-1]
    zeros = [(int(front), int(behind)) for front, behind in inside] or [(0, 0)] * len(kernel)
    shape = layer.output_shape or (None,) * rank
    results = shape[2:] if first else shape[1:-1]
    space: list[AxisOf] = []
    for size, stride, dilation, own, result in zip(kernel, strides, dilations, zeros, results, strict=True):
        if layer.op == "Conv2DBackpropInput":
            if result is None:
                return UNKNOWN
            before = None if padding == "SAME" else own[0]
            space.append(partial(Axis.spread, kernel=size, results=result, stride=stride, before=before))
        elif padding == "SAME":
            space.append(partial(Axis.same, kernel=size, stride=stride, dilation=dilation))
        else:
            space.append(partial(Axis.padded, kernel=size, stride=stride, dilation=dilation, zeros=own))
    depthwise = layer.op == "DepthwiseConv2dNative"
    channels = 1 if depthwise else layer.weight_shape[layer.operator.input_axis]
    return WeightInputs(tuple(space), prod(kernel), channels, layer.data_axis)


def _of_lite(lite: LiteGraph, layer: Layer) -> WeightInputs | str:
    kind, index, _ = lite.operator(layer.name)
    options, shape = lite.operators[index].builtinOptions, layer.weight_shape
    if kind == "FULLY_CONNECTED":
        return WeightInputs((), 1, shape[1])
    if kind == "BATCH_MATMUL":
        if prod(shape[:-2]) > 1:
            return "it has several matrices, each for data of its own"
        return WeightInputs((), 1, shape[-1] if options.adjY else shape[-2], transposed=bool(options.adjX))
    same = options.padding == schema.Padding.SAME
    kernel, strides = shape[1:3], (options.strideH, options.strideW)
    if kind == "TRANSPOSE_CONV":
        results = (layer.output_shape or (None,) * 4)[1:-1]
        if None in results:
            return UNKNOWN
        before = None if same else 0
        each = zip(kernel, results, strides, strict=True)
        space = [partial(Axis.spread, kernel=k, results=r or 0, stride=s, before=before) for k, r, s in each]
    else:
        of, dilations = Axis.same if same else Axis.padded, (options.dilationHFactor, options.dilationWFactor)
        parts = zip(kernel, strides, dilations, strict=True)
        space = [partial(of, kernel=k, stride=s, dilation=d) for k, s, d in parts]
    return WeightInputs(tuple(space), prod(kernel), 1 if kind == "DEPTHWISE_CONV_2D" else shape[3])


class InputMoments:
    """Means and second moments of what the weights of a layer meet, group by group, from rows (groups, rows, inputs).

    They are summed about the mean of the first rows, which keeps float32 exact where means are large, and many at once:
    few take as long. As long as there are no more rows than inputs the rows are kept, which take less memory.
    """

    def __init__(self, rows: Array) -> None:
        groups, _, inputs = rows.shape
        self._count = 0
        self._about = rows.mean(axis=1, keepdims=True)
        self._sums: Array = np.zeros(self._about.shape)
        self._products: Array | None = None
        self._waiting: list[Array] = []
        self._room = max(WAITING, groups * inputs**2 * rows.itemsize)
        self.add(rows)

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return self._bytes if self._products is None else self._products.nbytes

    def add(self, rows: Array) -> None:
        """See more rows."""
        moved = rows - self._about
        self._count += moved.shape[1]
        self._sums += moved.sum(axis=1, dtype=np.float64, keepdims=True)
        self._waiting.append(moved)
        if self._bytes > self._room:
            self._multiply()

    @property
    def _bytes(self) -> int:
        return sum(each.nbytes for each in self._waiting)

    @one_blas_thread()
    def _multiply(self) -> None:
        moved = np.concatenate(self._waiting, axis=1)
        self._waiting, self._room = [], WAITING
        with np.errstate(over="ignore", invalid="ignore"):  # which the moment shows
            products = moved.swapaxes(1, 2) @ moved
        self._products = products if self._products is None else self._products + products

    def samples(self, *, centered: bool) -> Array | None:
        """X of each group whose X^T X is the `moment`, (groups, rows, inputs), float64; None where rows are not few."""
        if self._products is not None or FEW * self._count > self._about.shape[-1]:
            return None
        found = np.concatenate(self._waiting, axis=1, dtype=np.float64)
        found += -self._sums / self._count if centered else self._about
        return np.asarray(found / math.sqrt(self._count))

    def moment(self, *, centered: bool) -> Array:
        """E[x x^T] of each group, (groups, inputs, inputs), float64; `centered` of what differs from the mean."""
        if self._products is not None and self._waiting:
            self._multiply()
        mean = self._sums / self._count
        shifted = mean + self._about
        found = self._squares()
        for start in range(0, found.shape[1], TOGETHER):  # all at once would take the memory of another moment
            some = slice(start, start + TOGETHER)
            found[:, some] /= np.float64(self._count)
            found[:, some] -= mean.swapaxes(1, 2)[:, some] * mean
            if not centered:
                found[:, some] += shifted.swapaxes(1, 2)[:, some] * shifted
        return found

    @one_blas_thread()
    def _squares(self) -> Array:
        if self._products is not None:
            return self._products.astype(np.float64)
        rows = np.concatenate(self._waiting, axis=1, dtype=np.float64)
        return np.asarray(rows.swapaxes(1, 2) @ rows)
