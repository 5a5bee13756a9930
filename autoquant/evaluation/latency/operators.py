"""Models measured side by side, whole and operator by operator, each cut out and run on the kernels it has there."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.latency.latency import (
    Latency,
    ModelTime,
    OperatorTime,
    RoundsBudget,
    Spread,
    interleaved,
    noise,
    seconds_of_others,
)
from autoquant.evaluation.latency.models import feed, layer_of, lite_of, one_batch, opened
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import hold_integers
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.interpreter import plain_interpreter
from autoquant.model.litert.kinds import HOLDS_SUBGRAPHS
from autoquant.model.litert.parts import extract_operators
from autoquant.model.model import Model, is_lite
from autoquant.model.operators import canonical

QUANTIZE, DEQUANTIZE = "QUANTIZE", "DEQUANTIZE"
FLOAT, INT8 = "FP32", "INT8"
"""What the two models of a run are called."""


@dataclass(frozen=True)
class Operator:
    """A model of one operator, what it is fed, its kind (CONV_2D) and the name of its first output.

    `converted` is the name of what a DEQUANTIZE or QUANTIZE makes of that output, empty without one: an output of an
    INT8 model is called as in the float model, and so what it is made from has another name.
    """

    tensor: str
    kind: str
    content: bytes
    samples: tuple[Array, ...]
    converted: str = ""

    def key(self, known: Container[tuple[str, str]] = ()) -> tuple[str, str]:
        """Kind and tensor, by which it is found in another version of its model, whose keys are `known`."""
        own, other = (self.kind, canonical(self.tensor)), (self.kind, canonical(self.converted))
        return other if own not in known and other in known else own


def operators_of(name: str, content: bytes, samples: Sequence[Array]) -> list[Operator]:
    """Every operator of a .tflite in order, fed with what it reads when the model runs on a batch of samples.

    Those that run other subgraphs, read what is no array, or read nothing are left out. Raises ModelError where it
    cannot be run.
    """
    interpreter = plain_interpreter(content)
    feed(name, interpreter, samples)
    shapes = {int(detail["index"]): tuple(map(int, detail["shape"])) for detail in interpreter.get_tensor_details()}
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    converted = _converted(model)
    found = []
    for op in graph.operators:
        kind = flatbuffer.op_name(model, op)
        types = {graph.tensors[index].type for index in _tensors_of(op)}
        if kind in HOLDS_SUBGRAPHS or not types <= flatbuffer.DTYPES.keys():
            continue
        cut, read = cut_out(model, op, shapes)
        if any(0 in shapes[index] for index in read):  # LiteRT does not give away what holds no value
            continue
        fed = tuple(np.array(interpreter.get_tensor(index)) for index in read)
        made = int(op.outputs[0])
        name = flatbuffer.tensor_name(graph.tensors[made])
        found.append(Operator(name, kind, cut, fed, converted.get(made, "")))
    return found


def _converted(model: Any) -> Mapping[int, str]:
    """Tensor -> the name of what a DEQUANTIZE, or a QUANTIZE at an output of the model, makes of it."""
    graph = model.subgraphs[0]
    outputs = set(map(int, graph.outputs))
    made = {}
    for op in graph.operators:
        kind, output = flatbuffer.op_name(model, op), int(op.outputs[0])
        if kind == DEQUANTIZE or (kind == QUANTIZE and output in outputs):
            made[int(op.inputs[0])] = flatbuffer.tensor_name(graph.tensors[output])
    return made


def cut_out(model: Any, op: Any, shapes: Mapping[int, tuple[int, ...]]) -> tuple[bytes, list[int]]:
    """The .tflite of one operator (OperatorT) of a model (ModelT), and the tensors that it has as inputs, in order.

    Constants, quantization, options and a fused activation stay. `shapes` are those of all other tensors, by index.
    """
    tensors = model.subgraphs[0].tensors
    outputs = [int(index) for index in op.outputs]
    made = [index for index in _tensors_of(op) if not _is_constant(model, tensors[index])]
    made = [index for index in made if not tensors[index].isVariable]
    inputs = [index for index in made if index not in outputs]
    alone, places = extract_operators(model, [op], inputs, outputs)
    for index in made:
        tensor = alone.subgraphs[0].tensors[places[index]]
        tensor.buffer, tensor.shape, tensor.shapeSignature = 0, np.asarray(shapes[index], np.int32), None
    return flatbuffer.write(alone), inputs


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def conversion(source: int, result: int, shape: Sequence[int]) -> Operator:
    """A QUANTIZE or DEQUANTIZE of an activation of this shape, from so many bits to others; 0 is float."""
    kind = QUANTIZE if result else DEQUANTIZE
    alone, sub = _empty_model()
    alone.operatorCodes = [flatbuffer.operator_code(getattr(schema.BuiltinOperator, kind))]
    for name, bits in (("read", source), ("made", result)):
        tensor = schema.TensorT()
        tensor.name, tensor.buffer, tensor.type = name.encode(), 0, schema.TensorType.FLOAT32
        tensor.shape = np.asarray(shape, np.int32)
        if bits:
            hold_integers(tensor, scale=2.0 ** (1 - bits), zero=0, bits=bits)
        sub.tensors.append(tensor)
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, [0], [1]
    sub.operators, sub.inputs, sub.outputs = [op], [0], [1]
    values = np.zeros(tuple(shape), flatbuffer.DTYPES[sub.tensors[0].type])
    return Operator("made", kind, flatbuffer.write(alone), (values,))


def operator_seconds(
    models: Sequence[Sequence[Operator]], *, threads: int, clock: Callable[[], float], budget: RoundsBudget
) -> list[list[float]]:
    """Least seconds of each operator of each model, all of them measured in turns.

    An operator takes longer only because others disturb it (https://docs.python.org/3/library/timeit.html, `repeat`),
    and some more than others: medians of a busy machine do not compare. What it takes to call an interpreter at all,
    measured beside them on a DEQUANTIZE of one value, is taken off.
    """
    timed = [*(one for operators in models for one in operators), conversion(8, 0, (1,))]
    calls = [opened(one.tensor, one.content, one.samples, threads=threads).invoke for one in timed]
    *least, call = np.min(interleaved(calls, clock, budget), axis=0).tolist()
    seconds = iter(least)
    return [[max(next(seconds) - call, 0.0) for _ in operators] for operators in models]


def side_by_side(
    models: Sequence[Sequence[Operator]], seconds: Sequence[Sequence[float]]
) -> Mapping[tuple[str, str], tuple[float | None, ...]]:
    """The seconds of operators of a kind that make the same tensor in several models, None where one is not there.

    By kind and tensor in the first model that has it; `seconds` are those of each operator of each model.
    """
    found: dict[tuple[str, str], list[float | None]] = {}
    for number, (operators, own) in enumerate(zip(models, seconds, strict=True)):
        for one, second in zip(operators, own, strict=True):
            found.setdefault(one.key(found), [None] * len(models))[number] = second
    return {key: tuple(each) for key, each in found.items()}


def _tensors_of(op: Any) -> Iterator[int]:
    """Indices of all tensors of an operator, each once; those that are not there are -1 in the file."""
    groups = (op.inputs, op.outputs, () if op.intermediates is None else op.intermediates)
    yield from dict.fromkeys(int(index) for group in groups for index in group if index >= 0)


def _empty_model() -> tuple[Any, Any]:
    """A model (ModelT) of one subgraph (SubGraphT) without anything in it."""
    model, sub = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [sub]  # buffer 0 is empty in every file
    sub.tensors = []
    return model, sub


def measure_latency(
    models: Mapping[str, bytes],
    samples: Sequence[Array],
    *,
    threads: int = 1,
    budget: RoundsBudget | None = None,
    layers: Mapping[str, str] = MappingProxyType({}),
    clock: Callable[[], float] = time.perf_counter,
    others: Callable[[], float | None] = seconds_of_others,
) -> Latency:
    """Time models, by name, on one batch of samples in the order of their inputs; the first is the reference.

    `budget` holds for the whole models, and once more for all of their operators. `layers` gives the name of the layer
    that computes a tensor. `others` gives the processor time that other processes used so far. Raises ModelError where
    a model cannot be run.
    """
    budget = budget or RoundsBudget()
    calls = [opened(name, content, samples, threads=threads).invoke for name, content in models.items()]
    begin, before = clock(), others()
    times = interleaved(calls, clock, budget)
    took, after = clock() - begin, others()
    operators = [operators_of(name, content, samples) for name, content in models.items()]
    seconds = operator_seconds(operators, threads=threads, clock=clock, budget=budget)
    rows = [
        OperatorTime(layers.get(tensor, tensor), kind, each)
        for (kind, tensor), each in side_by_side(operators, seconds).items()
    ]
    return Latency(
        threads=threads,
        batch_size=len(samples[0]) if samples[0].ndim else 1,
        rounds=len(times),
        models=tuple(
            ModelTime(name, Spread.of(own), Spread.of(times[:, 0] / own), sum(least) / float(np.min(own)))
            for name, own, least in zip(models, times.T, seconds, strict=True)
        ),
        operators=tuple(sorted(rows, key=lambda row: -row.slowest)),
        noise=noise(times, took, after - before if before is not None and after is not None else None),
    )


def run_latency(model: Model, evaluation: Dataset, best: Path) -> Latency | None:
    """Time the float model and the file of a plan on real samples, on one thread; None for a file of another runtime.

    It takes some seconds, as `RoundsBudget` has it. Raises ModelError where a file cannot be run.
    """
    if not is_lite(best):
        return None
    lite = lite_of(model)
    models = {FLOAT: lite.content, INT8: best.read_bytes()}
    return measure_latency(models, one_batch(model, evaluation), layers=layer_of(lite))
