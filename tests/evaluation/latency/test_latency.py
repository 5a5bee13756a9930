"""What is said of measured times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.evaluation.latency.latency import Compared, Latency, ModelTime, OperatorTime, Spread


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=30))
def test_median_and_quartiles_are_those_of_numpy(values: list[float]) -> None:
    found = Spread.of(np.array(values))
    assert found.median == pytest.approx(np.median(values))
    assert found.lower_quartile == pytest.approx(np.percentile(values, 25))
    assert found.upper_quartile == pytest.approx(np.percentile(values, 75))


def test_quartiles_by_hand() -> None:
    assert Spread.of(np.array([5.0, 1.0, 3.0, 2.0, 4.0])) == Spread(3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("speed", "compared", "sentence"),
    [
        ((1.25, 1.5, 1.75), Compared.FASTER, "b is faster than a here: 1.50 times the speed (1.25 to 1.75)"),
        (
            (0.5, 0.75, 0.99),
            Compared.SLOWER,
            "b is not faster than a here, it is slower: 0.75 times the speed (0.50 to 0.99)",
        ),
        (
            (0.9, 1.25, 1.5),
            Compared.UNCLEAR,
            "b is not faster than a here, there is no clear difference: 1.25 times the speed (0.90 to 1.50)",
        ),
        (
            (1.0, 1.0, 1.0),
            Compared.UNCLEAR,
            "b is not faster than a here, there is no clear difference: 1.00 times the speed (1.00 to 1.00)",
        ),
    ],
)
def test_only_what_is_clear_counts_as_faster(
    speed: tuple[float, float, float], compared: Compared, sentence: str
) -> None:
    model = ModelTime("b", Spread(1.0, 1.0, 1.0), Spread(speed[1], speed[0], speed[2]))
    reference = ModelTime("a", Spread(1.0, 1.0, 1.0), Spread(1.0, 1.0, 1.0))
    assert model.compared is compared
    assert Latency(1, 1, 10, (reference, model)).statements == (sentence,)


def test_speed_of_an_operator_is_the_first_time_over_the_other() -> None:
    both = OperatorTime("conv", "CONV_2D", (3.0, 2.0, None))
    assert (both.speed(1), both.speed(2), both.slowest) == (1.5, None, 3.0)
    assert OperatorTime("in", "QUANTIZE", (None, 2.0)).speed(1) is None
    assert OperatorTime("shape", "SHAPE", (1.0, 0.0)).speed(1) is None
