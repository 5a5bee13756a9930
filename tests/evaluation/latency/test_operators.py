"""Operators cut out of a model compute what they compute in it, on the kernels that are timed."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from lite_models import Pair

from autoquant.errors import ModelError
from autoquant.evaluation.latency.latency import RoundsBudget
from autoquant.evaluation.latency.models import opened
from autoquant.evaluation.latency.operators import (
    DEQUANTIZE,
    QUANTIZE,
    Operator,
    conversion,
    operator_seconds,
    operators_of,
    side_by_side,
)
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.interpreter import plain_interpreter

KINDS = {
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "ADD",
    "SUB",
    "MUL",
    "CONCATENATION",
    "PAD",
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "MEAN",
    "LOGISTIC",
    "TANH",
    "LEAKY_RELU",
    "SOFTMAX",
    "RESHAPE",
}


def inside(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    """All data of a model, by tensor, on the kernels that it is timed on: every tensor is an output of it."""
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    made = [int(index) for op in graph.operators for index in op.outputs]
    graph.outputs = made
    model.signatureDefs = None
    interpreter = opened("whole", flatbuffer.write(model), [images], threads=1)
    values = {flatbuffer.tensor_name(graph.tensors[index]): interpreter.get_tensor(index) for index in made}
    return values | {flatbuffer.tensor_name(graph.tensors[index]): images for index in graph.inputs}


def data_of(one: Operator) -> list[str]:
    """The names of what a cut out operator reads."""
    graph = flatbuffer.read(one.content).subgraphs[0]
    return [flatbuffer.tensor_name(graph.tensors[index]) for index in graph.inputs]


def run(interpreter: Any) -> Any:
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("version", ["in_float", "int8"])
def test_each_gives_the_numbers_of_the_whole_model_at_its_place(lite_pair: Pair, version: str) -> None:
    content = getattr(lite_pair, version)
    values = inside(content, lite_pair.images)
    operators = operators_of("model", content, [lite_pair.images])
    for one in operators:
        interpreter = opened(one.kind, one.content, [values[name] for name in data_of(one)], threads=1)
        assert np.array_equal(run(interpreter), values[one.tensor]), one.kind
        assert values[one.tensor].std() > 0.0, one.kind  # a test of something
    found = {one.kind for one in operators}
    assert found >= KINDS
    assert (found >= {QUANTIZE, DEQUANTIZE}) == (version == "int8")


@pytest.mark.parametrize("version", ["in_float", "int8"])
def test_each_is_fed_with_what_it_reads_in_the_model(lite_pair: Pair, version: str) -> None:
    content = getattr(lite_pair, version)
    whole = plain_interpreter(content)
    whole.allocate_tensors()
    whole.set_tensor(whole.get_input_details()[0]["index"], lite_pair.images)
    whole.invoke()
    values = {detail["name"]: whole.get_tensor(detail["index"]) for detail in whole.get_tensor_details()}
    for one in operators_of("model", content, [lite_pair.images]):
        assert len(one.samples) == len(data_of(one))
        for name, sample in zip(data_of(one), one.samples, strict=True):
            assert np.array_equal(sample, values[name]), name


def test_operators_of_both_versions_find_each_other(lite_pair: Pair) -> None:
    known = {one.key() for one in operators_of("float", lite_pair.in_float, [lite_pair.images])}
    int8 = operators_of("int8", lite_pair.int8, [lite_pair.images])
    own = [one.key(known) for one in int8 if one.kind not in (QUANTIZE, DEQUANTIZE)]
    assert set(own) == known
    assert len(own) == len(known)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_operators_are_known_by_the_output_they_lead_to(kind: str) -> None:
    """An output of a model is called as it was before there was a conversion at it."""
    model = flatbuffer.read(conversion(*((8, 0) if kind == "float32" else (0, 8)), (4,)).content)
    graph = model.subgraphs[0]
    code = copy.copy(model.operatorCodes[0])
    code.builtinCode, code.version = schema.BuiltinOperator.TANH, 1
    code.deprecatedBuiltinCode = code.builtinCode
    model.operatorCodes.append(code)
    tanh, made = copy.copy(graph.operators[0]), copy.copy(graph.tensors[0])
    made.name, graph.tensors[1].name = b"y_before", b"y:0"
    if made.quantization is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = np.array([2.0**-7], np.float32), np.array([0], np.int64)
    graph.tensors.append(made)
    tanh.opcodeIndex, tanh.inputs, tanh.outputs = 1, [0], [2]
    graph.operators[0].inputs = [2]
    graph.operators = [tanh, *graph.operators]
    values = np.zeros(4, np.float32 if kind == "int8" else np.int8)
    one, _ = operators_of("m", flatbuffer.write(model), [values])
    assert (one.kind, one.tensor, one.converted) == ("TANH", "y_before", "y:0")


def test_an_operator_that_reads_no_values_is_left_out() -> None:
    """LiteRT has no such array to give."""
    content = conversion(0, 8, (0, 4)).content
    assert operators_of("m", content, [np.zeros((0, 4), np.float32)]) == []


def test_an_int8_result_may_have_another_name_where_it_is_an_output() -> None:
    one = Operator("logits_int8", "FULLY_CONNECTED", b"", (), "logits")
    assert one.key({("FULLY_CONNECTED", "logits")}) == ("FULLY_CONNECTED", "logits")
    assert one.key({("FULLY_CONNECTED", "logits_int8")}) == ("FULLY_CONNECTED", "logits_int8")
    assert one.key() == ("FULLY_CONNECTED", "logits_int8")
    assert Operator("logits:0", "FULLY_CONNECTED", b"", ()).key() == ("FULLY_CONNECTED", "logits")


def test_operators_side_by_side_by_hand() -> None:
    conv, mul = Operator("x", "CONV_2D", b"", ()), Operator("y", "MUL", b"", ())
    int8_mul, dequantize = Operator("y_int8", "MUL", b"", (), "y"), Operator("y", "DEQUANTIZE", b"", ())
    found = side_by_side([[conv, mul], [conv, int8_mul, dequantize]], [[1.0, 2.0], [4.0, 3.0, 0.5]])
    assert found == {("CONV_2D", "x"): (1.0, 4.0), ("MUL", "y"): (2.0, 3.0), ("DEQUANTIZE", "y"): (None, 0.5)}


def test_conversions_convert() -> None:
    values = np.array([-0.5, 0.0, 0.25, 3.0], np.float32)
    quantize, dequantize = conversion(0, 8, (4,)), conversion(8, 0, (4,))
    raw = run(opened("q", quantize.content, [values], threads=1))
    assert raw.tolist() == [-64, 0, 32, 127]  # 2 ** -7 a step
    assert run(opened("d", dequantize.content, [raw], threads=1)).tolist() == [-0.5, 0.0, 0.25, 127 / 128]


def test_the_least_time_counts_and_what_a_call_takes_is_taken_off(lite_pair: Pair) -> None:
    """The least are 5, 4, 3 and 2 seconds, the last for the call alone."""
    operators = operators_of("model", lite_pair.in_float, [lite_pair.images])[:3]
    rounds = [[7.0, 5.0, 3.0, 9.0], [5.0, 4.0, 8.0, 2.0], [6.0, 4.0, 3.0, 2.0]]
    steps = [0.0, *(step for took in rounds for second in took for step in (0.25, second))]
    ticks = itertools.accumulate([*steps, 0.0])
    budget = RoundsBudget(seconds=math.inf, rounds=3)
    assert operator_seconds([operators[:2], operators[2:]], threads=1, clock=lambda: next(ticks), budget=budget) == [
        [3.0, 2.0],
        [1.0],
    ]


def test_a_model_that_does_not_run_is_refused(lite_pair: Pair) -> None:
    with pytest.raises(ModelError, match="model: has 1 inputs, not 2; compare versions of one model"):
        operators_of("model", lite_pair.in_float, [lite_pair.images] * 2)
    with pytest.raises(ModelError, match=r"LiteRT cannot run it on inputs \(1, 8, 8, 3\)"):
        operators_of("model", lite_pair.in_float, [lite_pair.images[..., :3]])
