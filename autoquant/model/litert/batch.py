"""Opens the batch dimension of a .tflite that was converted for one sample, where the model allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.interpreter import plain_interpreter, run

TOLERANCE = 1e-4
"""Results of one sample alone and of the same in a batch may differ by rounding: relative to the largest of them."""


def with_open_batch(model: Any) -> None:
    """Open the batch of a file's objects in place, where all inputs are fixed to one sample and a batch of two gives
    what two samples give one by one; else the file stays as it is.
    """
    graph = model.subgraphs[0]
    shapes = [flatbuffer.shape_of(graph.tensors[index]) for index in graph.inputs]
    if not shapes or any(None in shape or shape[:1] != (1,) for shape in shapes):
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
    return {int(d["index"]): interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details()}


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
