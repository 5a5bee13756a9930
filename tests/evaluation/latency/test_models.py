"""Models measured side by side: what goes in, and what of a measurement comes out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from lite_models import Pair

from autoquant.errors import ModelError
from autoquant.evaluation.latency import operators
from autoquant.evaluation.latency.latency import LEAST, Latency, RoundsBudget, Spread
from autoquant.evaluation.latency.models import feed, opened, random_samples
from autoquant.evaluation.latency.operators import conversion, measure_latency
from autoquant.model.litert import flatbuffer

QUICK = RoundsBudget(seconds=math.inf, rounds=4)


class Turns:
    """A clock for two calls that take these seconds in each round, and for all that comes after no time.

    It is asked before it begins, then before and after each call, and after three rounds before each further one.
    """

    def __init__(self, rounds: list[tuple[float, float]]) -> None:
        steps = [0.0, 0.0]
        for number, (one, other) in enumerate(rounds):
            steps += [0.0] * (number >= LEAST) + [0.0, one, 0.0, other]
        self._times = itertools.accumulate(itertools.chain(steps, itertools.repeat(0.0)))

    def __call__(self) -> float:
        return next(self._times)


def measured(pair: Pair, **options: Any) -> Latency:
    return measure_latency({"a": pair.in_float, "b": pair.int8}, [pair.images], budget=QUICK, **options)


def test_speeds_are_of_each_round(lite_pair: Pair) -> None:
    found = measured(lite_pair, clock=Turns([(1.0, 2.0), (2.0, 8.0), (3.0, 3.0), (4.0, 1.0)]), others=lambda: None)
    assert [model.name for model in found.models] == ["a", "b"]
    assert [model.seconds.median for model in found.models] == [2.5, 2.5]
    assert found.models[0].speed == Spread(1.0, 1.0, 1.0)
    low, median, high = np.quantile([1 / 2, 2 / 8, 3 / 3, 4 / 1], [0.25, 0.5, 0.75])
    assert found.models[1].speed == Spread(median, low, high)
    assert (found.threads, found.batch_size, found.rounds) == (1, 1, 4)
    assert found.noise == "times varied by 100%"  # 2, 8, 3 and 1 s have quartiles of 1.75 and 4.25 around 2.5
    assert [model.operators_cover for model in found.models] == [0.0, 0.0]


def test_other_processes_count_while_it_measures(lite_pair: Pair) -> None:
    used = iter([10.0, 13.0])
    found = measured(lite_pair, clock=Turns([(1.0, 1.0)] * 4), others=lambda: next(used))
    assert found.noise.startswith("other processes kept 0.4 of ")  # 3 s of 8


def test_operators_of_both_in_one_line_with_the_names_of_layers(lite_pair: Pair) -> None:
    model = flatbuffer.read(lite_pair.in_float)
    graph = model.subgraphs[0]
    (dense,) = (op for op in graph.operators if flatbuffer.op_name(model, op) == "FULLY_CONNECTED")
    layers = {flatbuffer.tensor_name(graph.tensors[dense.outputs[0]]): "dense"}
    found = measured(lite_pair, layers=layers)
    (line,) = (one for one in found.operators if one.name == "dense")
    assert line.operator == "FULLY_CONNECTED"
    assert all(second is not None for second in line.seconds)
    both = [one for one in found.operators if None not in one.seconds]
    assert len(both) == len(graph.operators)
    only = [one for one in found.operators if None in one.seconds]
    assert {one.operator for one in only} == {"QUANTIZE", "DEQUANTIZE"}
    assert all(one.seconds[0] is None for one in only)
    assert [one.slowest for one in found.operators] == sorted((one.slowest for one in found.operators), reverse=True)


def test_operators_are_set_against_the_least_time_of_the_model(
    lite_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "operator_seconds", lambda models, **_: [[0.25] * len(own) for own in models])
    found = measured(lite_pair, clock=Turns([(4.0, 8.0), (2.0, 5.0), (3.0, 6.0), (4.0, 7.0)]))
    counts = [sum(one.seconds[number] is not None for one in found.operators) for number in (0, 1)]
    covers = [model.operators_cover for model in found.models]
    assert covers == [0.25 * counts[0] / 2.0, 0.25 * counts[1] / 5.0]


def test_random_numbers_are_of_the_right_type_and_range(lite_pair: Pair) -> None:
    (images,) = random_samples("m", lite_pair.in_float, batch_size=3)
    assert images.dtype == np.float32
    assert images.shape == (3, 8, 8, 4)
    assert 0.0 <= images.min() < 0.1 < 0.9 < images.max() < 1.0
    (raw,) = random_samples("m", conversion(8, 0, (1, 1000)).content, batch_size=1)  # its input is INT8
    assert (raw.shape, raw.dtype) == ((1, 1000), np.dtype(np.float32))
    assert raw.min() == pytest.approx(-1.0, abs=0.05)
    assert raw.max() == pytest.approx(127 / 128, abs=0.05)


def test_integers_that_are_no_quantized_numbers_are_zero() -> None:
    (indices,) = random_samples("m", integers(shape=[1, 5]), batch_size=2)
    assert (indices.shape, indices.dtype) == ((2, 5), np.dtype(np.int32))
    assert not indices.any()


@pytest.mark.parametrize(("size", "shape"), [((6, 9), (2, 6, 9, 3)), (None, None)])
def test_sizes_that_are_open(size: tuple[int, int] | None, shape: tuple[int, ...] | None) -> None:
    content = integers(shape=[1, 1, 1, 3], signature=[-1, -1, -1, 3])
    if shape is None:
        with pytest.raises(ModelError, match=r"m: leaves sizes of its input 'x' open: \?x\?x\?x3; give --image-size"):
            random_samples("m", content, batch_size=2)
    else:
        (found,) = random_samples("m", content, batch_size=2, image_size=size)
        assert found.shape == shape


def integers(shape: list[int], signature: list[int] | None = None) -> bytes:
    """A model that squares integers."""
    model = flatbuffer.read(conversion(0, 8, shape).content)
    graph = model.subgraphs[0]
    code = schema.BuiltinOperator.SQUARE
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = code
    for tensor in graph.tensors:
        tensor.type, tensor.quantization, tensor.name = schema.TensorType.INT32, None, b"x"
        tensor.shapeSignature = signature
    return flatbuffer.write(model)


def test_real_numbers_become_what_the_input_takes() -> None:
    interpreter = opened("m", conversion(8, 0, (4,)).content, [np.zeros(4, np.int8)], threads=1)
    feed("m", interpreter, [np.array([-9.0, -0.5, 0.0625, 9.0], np.float32)])
    raw = interpreter.get_tensor(interpreter.get_input_details()[0]["index"])
    assert (raw.dtype, raw.tolist()) == (np.int8, [-128, -64, 8, 127])


def test_files_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match="m: is not a model that LiteRT reads"):
        opened("m", b"nothing", [], threads=1)
    with pytest.raises(ModelError, match="m: is not a model that LiteRT reads"):
        random_samples("m", b"nothing", batch_size=1)


def test_one_of_several_signatures_is_not_taken_for_all(lite_pair: Pair) -> None:
    model = flatbuffer.read(lite_pair.in_float)
    graph = model.subgraphs[0]
    signatures = []
    for key in ("left", "right"):
        flatbuffer.add_signature(model, ["x"], [f"y{n}" for n in range(len(graph.outputs))], key=key)
        signatures += model.signatureDefs
    model.signatureDefs = signatures
    with pytest.raises(ModelError, match="m: has several signatures: left, right; convert the one"):
        opened("m", flatbuffer.write(model), [lite_pair.images], threads=1)
