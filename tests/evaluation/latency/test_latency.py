"""Latency from measured times: ratios, spread and warnings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.evaluation.latency.latency import (
    LEAST,
    Latency,
    ModelTime,
    OperatorTime,
    RoundsBudget,
    Spread,
    interleaved,
    noise,
    seconds_of_others,
)


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=30))
def test_median_and_quartiles_are_those_of_numpy(values: list[float]) -> None:
    found = Spread.of(np.array(values))
    assert found.median == pytest.approx(np.median(values))
    assert found.lower_quartile == pytest.approx(np.percentile(values, 25))
    assert found.upper_quartile == pytest.approx(np.percentile(values, 75))


def test_quartiles_by_hand() -> None:
    assert Spread.of(np.array([5.0, 1.0, 3.0, 2.0, 4.0])) == Spread(3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("speed", "sentence"),
    [
        ((1.25, 1.5, 1.75), "b is faster than a here: 1.50 times the speed (1.25 to 1.75)"),
        ((0.5, 0.75, 0.99), "b is not faster than a here, it is slower: 0.75 times the speed (0.50 to 0.99)"),
        (
            (0.9, 1.25, 1.5),
            "b is not faster than a here, there is no clear difference: 1.25 times the speed (0.90 to 1.50)",
        ),
        (
            (1.0, 1.0, 1.0),
            "b is not faster than a here, there is no clear difference: 1.00 times the speed (1.00 to 1.00)",
        ),
    ],
)
def test_only_what_is_clear_counts_as_faster(speed: tuple[float, float, float], sentence: str) -> None:
    model = ModelTime("b", Spread(1.0, 1.0, 1.0), Spread(speed[1], speed[0], speed[2]))
    reference = ModelTime("a", Spread(1.0, 1.0, 1.0), Spread(1.0, 1.0, 1.0))
    assert Latency(1, 1, 10, (reference, model)).statements == (sentence,)


def test_speed_of_an_operator_is_the_first_time_over_the_other() -> None:
    both = OperatorTime("conv", "CONV_2D", (3.0, 2.0, None))
    assert (both.speed(1), both.speed(2), both.slowest) == (1.5, None, 3.0)
    assert OperatorTime("in", "QUANTIZE", (None, 2.0)).speed(1) is None
    assert OperatorTime("shape", "SHAPE", (1.0, 0.0)).speed(1) is None


class Machine:
    """A clock, and calls that take 1, 2, 3, ... times as long as they are called often."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float) -> Callable[..., None]:
        def called() -> None:
            self.log.append(name)
            self.now += seconds * self.log.count(name)

        return called


def test_calls_take_turns_each_warmed_up_and_the_second_of_two_is_timed() -> None:
    machine = Machine()
    calls = [machine.call("a", 1.0), machine.call("b", 10.0)]
    times = interleaved(calls, machine.clock, RoundsBudget(seconds=math.inf, rounds=4))
    assert "".join(machine.log) == "ab" + "aabb" * 4
    assert times.tolist() == [[n, 10.0 * n] for n in (3, 5, 7, 9)]


def test_it_ends_when_the_time_is_used_but_not_before_there_are_quartiles() -> None:
    def rounds(seconds: float) -> int:
        machine = Machine()
        calls = [lambda: setattr(machine, "now", machine.now + 1.0)] * 2  # a round takes 4
        return len(interleaved(calls, machine.clock, RoundsBudget(seconds=seconds, rounds=100)))

    assert rounds(20.0) == 5
    assert rounds(20.5) == 6
    assert rounds(0.5) == LEAST
    assert rounds(1e6) == 100


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": math.nan}, {"rounds": LEAST - 1}])
def test_a_budget_is_one(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds and at least 3 rounds"):
        RoundsBudget(**wrong)


QUIET = np.array([[1.0, 2.0], [1.05, 2.0], [1.0, 2.1], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("times", "others", "said"),
    [
        (QUIET, 0.0, ""),
        (QUIET, None, ""),
        (QUIET, 0.69, ""),  # 0.3 cores of 2 seconds, and a tenth of a second that is not seen
        (QUIET, 1.5, r"other processes kept 0.8 of \d+ cores busy"),
        (np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]), 0.0, "times varied by 67%"),
        (
            np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]),
            4.0,
            r"other processes kept 2.0 of \d+ cores busy and times varied by 67%",
        ),
    ],
)
def test_noise(times: NDArray[Any], others: float | None, said: str) -> None:
    import re

    assert re.fullmatch(said, noise(times, 2.0, others))


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="only Linux tells")
def test_load_of_this_process_is_not_load_of_others() -> None:
    own, others = time.process_time(), seconds_of_others()
    while time.process_time() - own < 0.3:
        pass
    after = seconds_of_others()
    assert others is not None
    assert after is not None
    busy = 0.3 + after - others  # all that the machine's cores did meanwhile
    assert busy >= 0.25
