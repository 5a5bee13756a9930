"""The knapsack with shared costs, against all subsets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.tuning.sampling.shared_costs import SharedCost, SharedKnapsack


@st.composite
def knapsacks(draw: st.DrawFn) -> tuple[SharedKnapsack, float, Any]:
    """Layers, each with a switch for its activations, whose inputs other layers make."""
    layers = draw(st.integers(1, 4))
    numbers = st.floats(0.01, 1.0).map(lambda number: round(number, 3))
    gains = np.array(draw(st.lists(numbers, min_size=2 * layers, max_size=2 * layers)))
    costs = np.zeros(2 * layers)
    costs[:layers] = np.array(draw(st.lists(numbers, min_size=layers, max_size=layers))) / 10
    shared = [
        SharedCost(
            draw(numbers),
            (layers + one, *(layers + maker for maker in draw(st.sets(st.integers(0, one), max_size=2)) - {one})),
        )
        for one in range(layers)
    ]
    needs = np.concatenate([np.arange(layers), np.arange(layers)])
    cuts = np.array(
        draw(st.lists(st.lists(st.booleans(), min_size=2 * layers, max_size=2 * layers), max_size=2)), dtype=bool
    )
    return SharedKnapsack(gains, costs, shared, needs), draw(st.floats(0.05, 3.0)), cuts.reshape(-1, 2 * layers)


@given(knapsacks())
@settings(deadline=None)
def test_no_subset_gains_more(case: tuple[SharedKnapsack, float, Any]) -> None:
    knapsack, bound, cuts = case
    found = knapsack.most_gain(bound=bound, cuts=cuts)
    if not cuts.any(axis=1).all():
        assert found is None
        return
    assert found is not None
    best = 0.0
    for bits in itertools.product([False, True], repeat=knapsack.gains.size):
        subset = np.array(bits)
        allowed = (subset <= subset[knapsack.needs]).all() and not any((cut <= subset).all() for cut in cuts)
        if allowed and cost(knapsack, subset) <= bound * (1 - 1e-5):
            best = max(best, float(knapsack.gains[subset].sum()))
    assert (found <= found[knapsack.needs]).all()
    assert not any((cut <= found).all() for cut in cuts)
    assert cost(knapsack, found) <= bound * (1 + 1e-5)
    assert float(knapsack.gains[found].sum()) >= best * (1 - 1e-5)


def cost(knapsack: SharedKnapsack, subset: Any) -> float:
    both = [one.cost for one in knapsack.shared if any(subset[place] for place in one.switches)]
    return math.fsum([*knapsack.costs[subset], *both])


def test_a_tensor_costs_once_whoever_makes_it_eight_bits() -> None:
    """Two layers, the second reads what the first makes: 16 bits of one of them alone bring nothing."""
    shared = [SharedCost(0.1, (2,)), SharedCost(1.0, (3, 2))]
    knapsack = SharedKnapsack(
        np.array([1.0, 1.0, 0.5, 0.9]), np.array([0.0, 0.0, 0.0, 0.0]), shared, np.array([0, 1, 0, 1])
    )
    cuts = np.zeros((0, 4), dtype=bool)
    assert knapsack.cost_of(np.array([True, True, True, False])) == pytest.approx(1.1)
    assert knapsack.cost_of(np.array([True, True, True, True])) == pytest.approx(1.1)
    found = knapsack.most_gain(bound=1.0, cuts=cuts)
    assert found is not None and found.tolist() == [True, True, False, True] and knapsack.cost_of(found) == 1.0
