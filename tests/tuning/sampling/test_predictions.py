"""Predicted divergences looked up for all layers at once are those that were predicted of each."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from guided_problems import Synthetic
from hypothesis import given
from hypothesis import strategies as st
from wide_problems import wide_chain

from autoquant.tuning.sampling.coding import Coding
from autoquant.tuning.sampling.predictions import PredictionTable
from autoquant.tuning.sensitivity.request import Prediction
from autoquant.tuning.study.space import bits_of, switch_of

RANGES = ("r0", "r1")
NUMBERS = st.floats(0.0, 1.0) | st.just(math.inf)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=3))
def test_every_point_has_the_sum_of_its_layers(found: list[tuple[float, float]]) -> None:
    predicted = {f"l{i}": dict(zip(RANGES, own, strict=True)) for i, own in enumerate(found)}
    problem = Synthetic(dict.fromkeys(predicted, 1.0), predicted, predicted)
    coding = Coding(problem)
    table = PredictionTable(problem.sensitivities({}), coding)
    every = [dict(zip(problem.dimensions, values, strict=True)) for values in product(*problem.dimensions.values())]
    for point, row in zip(every, table.rows(every, np.stack([coding.encode(one) for one in every])), strict=True):
        own = [
            predicted[layer][str(point[f"{layer}:act_algo"])] if point[switch_of(layer)] else 0.0 for layer in predicted
        ]
        assert row.tolist() == own
        assert table.row(coding.encode(point)).tolist() == own
        assert table.total(coding.encode(point)) == math.fsum(own)


def test_settings_that_were_not_predicted_are_as_bad_as_the_worst() -> None:
    problem = Synthetic({"a": 1.0}, {"a": {"r0": 0.0, "r1": 0.0, "r2": 0.0}}, {})
    coding = Coding(problem)
    known = tuple(Prediction({"a:act_algo": name}, own) for name, own in (("r0", 0.1), ("r1", 0.3), ("r0", 9.0)))
    table = PredictionTable({"a": known}, coding)
    point = {switch_of("a"): True}
    found = [table.total(coding.encode({**point, "a:act_algo": name})) for name in ("r0", "r1", "r2")]
    assert found == [0.1, 0.3, 0.3]  # of the same settings the first counts


def test_a_space_without_any_choice() -> None:
    table = PredictionTable({"a": (Prediction({}, 0.2),)}, Coding(Synthetic({}, {}, {})))
    assert table.total(np.zeros(0, np.int16)) == 0.2


@pytest.mark.parametrize(("first", "second", "rounded"), [(8, 8, 2), (8, 16, 2), (16, 8, 1), (16, 16, 0)])
def test_an_input_is_rounded_where_the_layer_or_what_makes_it_has_eight_bits(
    first: int, second: int, rounded: int
) -> None:
    problem = wide_chain({"a": 0.01, "b": 0.01})
    coding = Coding(problem)
    point = {name: choices[0] for name, choices in problem.dimensions.items()} | {
        bits_of("a"): first,
        bits_of("b"): second,
    }
    table = PredictionTable(problem.sensitivities(point), coding, problem.makers)
    row = table.row(coding.encode(point))
    assert table.inputs.tolist() == [False, False, True, True]
    assert row[:2] == pytest.approx([1e-4, 1e-4])
    assert row[2:].sum() == pytest.approx(0.01 * rounded)
