"""The estimated time of a plan: by hand, against every choice of operators, and kept with the run."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lite_models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lite_models import Pair
from numpy.typing import NDArray
from tiny_model import Tiny

import autoquant
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.evaluation.latency.latency import RoundsBudget
from autoquant.evaluation.latency.operator_times import OperatorTimes, cached_times, measured_times
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.load import load_lite
from autoquant.model.open import open_model
from autoquant.targets.litert import LiteRTTarget
from autoquant.tuning import objective as latency_objective
from autoquant.tuning.objective import EstimatedLatency

NAMES = ("conv", "depthwise", "dense")
OPERATORS = ["CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED"]
INT8 = LayerPlan(channel_wise=False)


@pytest.fixture(scope="module")
def lite(tiny: Tiny) -> LiteGraph:
    """The tiny model: image -> conv -> depthwise -> mean -> dense."""
    found = LiteRTTarget().lowered(open_model(tiny.model)).program
    assert isinstance(found, LiteGraph)
    assert [flatbuffer.op_name(found.model, op) for op in found.subgraph.operators] == OPERATORS
    return found


def data(lite: LiteGraph) -> list[str]:
    """Names of the input and of what each operator makes."""
    graph = lite.subgraph
    indices = [graph.inputs[0], *(op.outputs[0] for op in graph.operators)]
    return [flatbuffer.tensor_name(graph.tensors[index]) for index in indices]


def estimate(
    lite: LiteGraph,
    in_float: list[float],
    in_int8: list[float],
    quantize: list[float],
    dequantize: list[float],
    *,
    io: str = "float32",
    always: Any = (),
) -> EstimatedLatency:
    names = data(lite)
    conversions = {
        ends: dict(zip(names, map(float, costs), strict=True))
        for ends, costs in {(0, 8): quantize, (8, 0): dequantize}.items()
    }
    times = OperatorTimes({0: np.array(in_float, float), 8: np.array(in_int8, float)}, conversions)
    return EstimatedLatency(lite, io, times, frozenset(always))


def plan(*int8: str) -> Plan:
    return Plan({name: INT8 if name in int8 else None for name in NAMES})


@pytest.mark.parametrize(
    ("int8", "io", "seconds"),
    [
        ((), "float32", 4 + 3 + 2 + 1),
        (NAMES, "float32", 1 + 2 + 4 + 0.5 + 10 + 0.01),  # the image in, the scores out
        (NAMES, "int8", 1 + 2 + 4 + 0.5),
        (("conv", "dense"), "float32", 1 + 3 + 4 + 0.5 + 10 + 0.2 + 30 + 0.01),  # the mean goes with what reads it
        (("conv",), "float32", 1 + 3 + 2 + 1 + 10 + 0.2),
        (("conv",), "int8", 1 + 3 + 2 + 1 + 0.2 + 50),
        (("dense",), "float32", 4 + 3 + 4 + 0.5 + 30 + 0.01),
    ],
)
def test_seconds_by_hand(lite: LiteGraph, int8: tuple[str, ...], io: str, seconds: float) -> None:
    found = estimate(lite, [4, 3, 2, 1], [1, 2, 4, 0.5], [10, 20, 30, 40, 50], [0.1, 0.2, 0.3, 0.4, 0.01], io=io)
    assert found(plan(*int8)) == pytest.approx(seconds / 10)


def test_16_bits_have_their_own_times_and_conversions(lite: LiteGraph) -> None:
    """The first of three layers has 16 bits: its image is converted to these, and its result to 8."""
    found = estimate(lite, [4, 3, 2, 1], [1, 2, 4, 0.5], [10, 20, 30, 40, 50], [0.1, 0.2, 0.3, 0.4, 0.01])
    flat = {ends: dict.fromkeys(data(lite), float(sum(ends))) for ends in ((0, 16), (16, 0), (8, 16), (16, 8))}
    seconds = {**found.times.seconds, 16: np.array([7.0, 8.0, 9.0, 10.0])}
    times = OperatorTimes(seconds, {**found.times.conversions, **flat})
    wide = replace(found, times=times)
    layers = {**plan(*NAMES).layers, "conv": replace(INT8, activation_bits=16)}
    assert wide(Plan(layers)) == pytest.approx((7 + 2 + 4 + 0.5 + 16 + 24 + 0.01) / 10)
    assert wide(plan(*NAMES)) == found(plan(*NAMES))
    assert wide.lowest <= min(wide(plan(*NAMES)), wide(Plan(layers)), 1.0) + 1e-5


def test_an_operator_never_seen_in_int8_is_as_fast_as_in_float(lite: LiteGraph) -> None:
    found = estimate(lite, [4, 3, 2, 1], [1, np.nan, 2, 1], [0] * 5, [0] * 5)
    assert found(plan(*NAMES)) == pytest.approx((1 + 3 + 2 + 1) / 10)


def lowest_of_all(found: EstimatedLatency, free: list[bool]) -> float:
    """The least time of any choice of operators, the chain of them followed by hand."""
    times, names, end = found.times, list(found.times.conversions[0, 8]), found.io == "int8"
    best = np.inf
    for choice in itertools.product(*([False, True] if one else [False] for one in free)):
        seconds = sum(times.seconds[8 if int8 else 0][i] for i, int8 in enumerate(choice))
        for name, (maker, reader) in zip(names, itertools.pairwise([end, *choice, end]), strict=True):
            if maker != reader:
                seconds += times.conversions[(0, 8) if reader else (8, 0)][name]
        best = min(best, seconds)
    return float(best / times.in_float.sum())


COST = st.floats(0.0, 8.0)
TIMES = st.lists(st.floats(0.125, 8.0), min_size=4, max_size=4)
COSTS = st.lists(COST, min_size=5, max_size=5)


@given(TIMES, TIMES, COSTS, COSTS, st.sampled_from(["float32", "int8"]), st.sets(st.sampled_from(NAMES)))
def test_no_choice_of_operators_is_faster_than_the_lowest(
    lite: LiteGraph,
    in_float: list[float],
    in_int8: list[float],
    quantize: list[float],
    dequantize: list[float],
    io: str,
    always: set[str],
) -> None:
    found = estimate(lite, in_float, in_int8, quantize, dequantize, io=io, always=always)
    free = [name not in always for name in ("conv", "depthwise", "mean", "dense")]
    assert found.lowest == pytest.approx(lowest_of_all(found, free), abs=1e-5)
    plans = [plan(*int8) for size in range(4) for int8 in itertools.combinations(sorted({*NAMES} - always), size)]
    assert found.lowest <= min(found(one) for one in plans) + 1e-5


def test_the_lowest_is_reached_where_all_is_faster_in_int8(lite: LiteGraph) -> None:
    found = estimate(lite, [4, 3, 2, 1], [1, 2, 1, 0.5], [0.5] * 5, [0.25] * 5)
    assert found(plan(*NAMES)) == pytest.approx(5.25 / 10)
    assert found(plan(*NAMES)) <= found.lowest
    assert found(plan("conv", "depthwise")) > found.lowest


def test_times_are_measured_of_every_operator(lite_pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(lite_pair.in_float)
    lite = load_lite(tmp_path / "m.tflite").program
    assert isinstance(lite, LiteGraph)
    int8 = lite_models.quantized(lite.content, lite_pair.images)
    times = measured_times(lite, {8: int8, 16: int8}, [lite_pair.images], RoundsBudget(seconds=0.01, rounds=3))
    assert {bits: own.shape for bits, own in times.seconds.items()} == dict.fromkeys((0, 8, 16), (len(lite.operators),))
    assert all(np.isfinite(own).all() for own in times.seconds.values())
    assert set(times.conversions) == {(0, 8), (8, 0), (0, 16), (16, 0), (8, 16), (16, 8)}
    assert all(set(own) == set(data(lite)) for own in times.conversions.values())
    other = replace(times, seconds={0: times.seconds[8], 8: times.in_float})
    for key, now, known in (("key", times, times), ("key", other, times), ("another key", other, other)):
        found = cached_times(tmp_path / "kept.npz", key, partial(replace, now))
        assert found.seconds.keys() == known.seconds.keys()
        assert all(np.array_equal(own, known.seconds[bits]) for bits, own in found.seconds.items())
        assert found.conversions == times.conversions


def test_a_run_measures_once_and_keeps_what_it_minimized(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Path] = []

    def measured(lite: LiteGraph, integers: Any, samples: list[NDArray[Any]]) -> OperatorTimes:
        heard.append(tmp_path)
        assert list(integers) == [8]
        assert [array.shape for array in samples] == [(1, 8, 8, 2)]
        names = data(lite)
        flow = dict.fromkeys(names, 0.0)
        seconds = {0: np.array([4.0, 3.0, 2.0, 1.0]), 8: np.array([1.0, 2.0, 1.0, 8.0])}
        return OperatorTimes(seconds, {(0, 8): flow, (8, 0): flow})

    monkeypatch.setattr(latency_objective, "measured_times", measured)
    options: dict[str, Any] = {"target": "litert", "objective": "latency", "tolerance": 1.0, "batch_size": 50}
    result = autoquant.search(
        tiny.model, tiny.evaluation, calibration=tiny.calibration, run=tmp_path / "run", max_trials=3, **options
    )
    assert result.objective == "latency"
    values = [trial.objective for trial in result.trials]
    assert values[0] == pytest.approx((1 + 2 + 1 + 8) / 10)
    assert result.trials[0].qdq_ops == 2
    assert result.best is not None
    assert result.best.objective == min(values)
    score = json.loads((tmp_path / "run" / "best" / "score.json").read_text())
    assert score["objective"] == result.best.objective
    assert score["qdq_ops"] == result.best.qdq_ops
    again = autoquant.resume(tmp_path / "run", max_trials=4)
    assert len(heard) == 1
    assert [trial.objective for trial in again.trials][:3] == values
    assert [trial.qdq_ops for trial in again.trials][:3] == [trial.qdq_ops for trial in result.trials]
