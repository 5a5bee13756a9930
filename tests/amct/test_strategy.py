"""Bisection after a hand calculation, and what a strategy may be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.amct.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, TpeStrategy, open_strategy
from autoquant.errors import UsageError

RANKING = {"e": 0.9, "a": 0.1, "c": 0.5, "b": 0.2, "d": 0.7}
"""From the worst on: a b c d e."""


def play(ranking: dict[str, float], needed: int) -> tuple[list[str], str]:
    """Layers in float of each probe, and of the final configuration, where `needed` of the worst must be."""
    strategy = BinarySearchStrategy()
    strategy.initialize(ranking)
    probes: list[str] = []
    satisfied = False
    while True:
        step = strategy.update_quant_config((satisfied, 0.0))
        assert set(step["roll_back_config"]) == set(ranking)
        in_float = "".join(sorted(name for name, int8 in step["roll_back_config"].items() if not int8))
        if step["stop_flag"]:
            return probes, in_float
        probes.append(in_float)
        satisfied = len(in_float) >= needed


@pytest.mark.parametrize(
    ("needed", "probes", "final"),
    [
        (1, ["abc", "a"], "a"),  # [0,4] 2 passes, [0,1] 0 passes, [0,-1]
        (2, ["abc", "a", "ab"], "ab"),  # 0 fails, [1,1] 1 passes
        (3, ["abc", "a", "ab"], "abc"),  # 1 fails: what passed before stays
        (4, ["abc", "abcd"], "abcd"),  # [3,4] 3 passes
        (5, ["abc", "abcd", "abcde"], "abcde"),
    ],
)
def test_five_layers_by_hand(needed: int, probes: list[str], final: str) -> None:
    assert play(RANKING, needed) == (probes, final)


def test_one_layer() -> None:
    assert play({"a": 0.3}, 1) == (["a"], "a")


def test_where_nothing_satisfies_all_go_back() -> None:
    assert play(RANKING, 6) == (["abc", "abcd", "abcde"], "abcde")


@settings(deadline=None)
@given(st.lists(st.floats(-10, 1), min_size=1, max_size=60), st.data())
def test_the_fewest_layers_are_found_in_few_probes(scores: list[float], data: Any) -> None:
    ranking, count = {f"l{number}": score for number, score in enumerate(scores)}, len(scores)
    strategy, needed = BinarySearchStrategy(), data.draw(st.integers(1, count))
    strategy.initialize(ranking)
    satisfied, probes = False, -1
    while True:
        step = strategy.update_quant_config((satisfied, math.inf))
        probes += 1
        in_float = [name for name, int8 in step["roll_back_config"].items() if not int8]
        if step["stop_flag"]:
            break
        satisfied = len(in_float) >= needed
    assert len(in_float) == needed
    assert probes <= math.floor(math.log2(count)) + 1
    assert max(ranking[name] for name in in_float) <= min(
        [score for name, score in ranking.items() if name not in in_float], default=math.inf
    )


def test_by_name_or_an_object_of_ones_own() -> None:
    own = BinarySearchStrategy()
    assert open_strategy(own) is own
    assert isinstance(open_strategy("BinarySearch"), BinarySearchStrategy)
    assert isinstance(open_strategy("BinarySearchStrategy"), BinarySearchStrategy)
    for a_class in (BinarySearchStrategy, TpeStrategy):
        with pytest.raises(UsageError, match=r"strategy: \w+ is a class; give an object of it: \w+\(\)"):
            open_strategy(a_class)
    assert open_strategy("TPE") == TpeStrategy()
    assert open_strategy(TpeStrategy(trials=4)) == TpeStrategy(trials=4)
    with pytest.raises(UsageError, match="strategy: unknown 'Binary'; did you mean 'BinarySearch'"):
        open_strategy("Binary")
    with pytest.raises(UsageError, match=r"object has no method initialize\(\)"):
        open_strategy(object())
    with pytest.raises(ValueError, match="trials must be greater than zero, got 0"):
        TpeStrategy(trials=0)


def test_a_base_that_is_not_overridden() -> None:
    base = AutoCalibrationStrategyBase()
    with pytest.raises(UsageError, match=r"has no initialize\(ranking_info\) of its own"):
        base.initialize({})
    with pytest.raises(UsageError, match=r"has no update_quant_config\(metric_eval\) of its own"):
        base.update_quant_config((True, 0.0))
