"""The knapsack against all subsets, and at its edges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from autoquant.tuning.sampling import knapsack
from autoquant.tuning.sampling.knapsack import CORE, ENOUGH, FREE, STEPS, most_gain


def chosen_of(
    gains: Mapping[str, float], costs: Mapping[str, float], *, bound: float, cuts: Sequence[Collection[str]] = ()
) -> frozenset[str] | None:
    """The layers that are chosen, all by name."""
    rows = np.array([[name in cut for name in gains] for cut in cuts], dtype=np.bool_).reshape(len(cuts), len(gains))
    arrays = (np.array([each[name] for name in gains], dtype=np.float64) for each in (gains, costs))
    found = most_gain(*arrays, bound=bound, cuts=rows)
    return None if found is None else frozenset(itertools.compress(gains, found))


def exhaustive(
    gains: dict[str, float], costs: dict[str, float], bound: float, cuts: list[frozenset[str]]
) -> tuple[float, float]:
    """The most gain that any subset has, and the least cost of those that have it."""
    names = list(gains)
    best = (-math.inf, 0.0)
    for chosen in itertools.product((False, True), repeat=len(names)):
        taken = {name for name, own in zip(names, chosen, strict=True) if own}
        cost = sum(costs[name] for name in taken)
        if cost <= bound and not any(cut <= taken for cut in cuts):
            best = max(best, (sum(gains[name] for name in taken), -cost))
    return best[0], -best[1]


@st.composite
def problems(draw: Callable[..., Any]) -> tuple[Any, ...]:
    """In whole numbers, so that equal gains and costs at the bound occur and are exact."""
    names = [f"l{number}" for number in range(draw(st.integers(1, 9)))]
    gains = {name: float(draw(st.integers(-5, 40))) for name in names}
    costs = {name: float(draw(st.sampled_from([0, 1, 2, 3, 5, 8, 20, 50, math.inf]))) for name in names}
    cuts = draw(st.lists(st.frozensets(st.sampled_from(names), min_size=1), max_size=4))
    return gains, costs, float(draw(st.integers(0, 80))), cuts


@pytest.mark.parametrize("few", [0, 4, CORE], ids=["by HiGHS", "core", "by all subsets"])
@settings(max_examples=60, deadline=None)
@given(problems())
def test_it_is_the_best_of_all_subsets(few: int, problem: tuple[Any, ...]) -> None:
    gains, costs, bound, cuts = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "CORE", few)
        chosen = chosen_of(gains, costs, bound=bound, cuts=cuts)
    assert chosen is not None
    assert not any(cut <= chosen for cut in cuts)
    found = (sum(gains[name] for name in chosen), sum(costs[name] for name in chosen))
    assert found == pytest.approx(exhaustive(gains, costs, bound, cuts))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_of_all_subsets_of_twelve(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"l{number}" for number in range(12)]
    gains = dict(zip(names, random.dirichlet(np.ones(12)).tolist(), strict=True))
    costs = dict(zip(names, random.lognormal(0.0, 2.0, 12).tolist(), strict=True))
    cuts = [frozenset(map(str, random.choice(names, 8, replace=False))) for _ in range(3)]
    bound = 0.6 * sum(costs.values())
    chosen = chosen_of(gains, costs, bound=bound, cuts=cuts)
    assert chosen is not None
    assert sum(gains[name] for name in chosen) == pytest.approx(exhaustive(gains, costs, bound, cuts)[0], abs=1e-4)
    assert sum(costs[name] for name in chosen) <= bound * (1 + 1e-4)


@pytest.mark.parametrize(
    ("gains", "costs", "bound", "cuts", "expected"),
    [
        ({}, {}, 1.0, [], set()),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, 0.0, [], set()),
        ({"a": 1.0, "b": 2.0}, {"a": 0.0, "b": 2.0}, 0.0, [], {"a"}),
        ({"a": 1.0, "b": 2.0}, {"a": math.inf, "b": math.nan}, math.inf, [], set()),
        ({"a": 1.0, "b": -2.0, "c": 0.0}, {"a": 1.0, "b": 0.0, "c": 0.0}, 5.0, [], {"a"}),
        ({"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 2.0}, 4.0, [], {"b"}),
        ({"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 2.0}, math.inf, [{"a", "b"}], {"b"}),
        ({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, math.inf, [{"a"}, {"b"}], set()),
        ({"a": 1.0, "b": 3.0, "c": 0.0}, {"a": 0.0, "b": 0.0, "c": 0.0}, math.inf, [{"a", "c"}], {"a", "b"}),
        ({"a": 1.0}, {"a": 0.0}, 1.0, [set()], None),
    ],
)
def test_edges(
    gains: dict[str, float], costs: dict[str, float], bound: float, cuts: list[set[str]], expected: set[str] | None
) -> None:
    assert chosen_of(gains, costs, bound=bound, cuts=cuts) == (None if expected is None else frozenset(expected))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [15, 40])
def test_it_is_what_an_integer_program_of_all_layers_finds(seed: int, count: int) -> None:
    """With cuts near the best subset, as plans that were tried give them. Costs are steps already, up to 100,000."""
    random = np.random.default_rng([seed, count])
    gains, costs = random.dirichlet(np.full(count, 2.0)), np.rint(random.lognormal(9.0, 1.5, count))
    cuts = np.zeros((0, count), dtype=np.bool_)
    for _ in range(5):
        chosen = most_gain(gains, costs, bound=1e5, cuts=cuts)
        assert chosen is not None
        assert not any((cut <= chosen).all() for cut in cuts)
        limits = [LinearConstraint(costs, ub=1e5 + 0.5 * count)]
        limits += [LinearConstraint(cut.astype(float), ub=cut.sum() - 1.0) for cut in cuts]
        options = {"mip_rel_gap": 0.0}
        best = milp(-gains, constraints=limits, integrality=np.ones(count), bounds=Bounds(0, 1), options=options)
        assert gains[chosen].sum() == pytest.approx(-best.fun, abs=1e-5)
        assert costs[chosen].sum() <= 1e5 + 0.5 * count
        cuts = np.concatenate([cuts, chosen[None]])


def test_two_hundred_layers() -> None:
    """Against the linear relaxation: the whole items that fit, best ratio first, are a bound from below."""
    random = np.random.default_rng(1)
    names = [f"l{number}" for number in range(200)]
    gains = dict(zip(names, random.lognormal(0.0, 1.0, 200).tolist(), strict=True))
    costs = dict(zip(names, random.lognormal(0.0, 2.0, 200).tolist(), strict=True))
    bound = 0.1 * sum(costs.values())
    chosen = chosen_of(gains, costs, bound=bound)
    greedy, room = 0.0, bound
    for name in sorted(names, key=lambda name: costs[name] / gains[name]):
        if costs[name] <= room:
            greedy, room = greedy + gains[name], room - costs[name]
    assert chosen is not None
    assert sum(gains[name] for name in chosen) >= greedy * (1 - 1e-4)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS has a line for its developers for this one."""
    gains = [9542, 6481, 3554, 13739, 14947, 349, 7536, 1149, 2213, 21599, 18890]
    costs = [74785, 2117, 38736, 26273, 2099, 62278, 35479, 27008, 12490, 2358, 79472]
    names = [f"l{number}" for number in range(11)]
    chosen = chosen_of(
        dict(zip(names, gains, strict=True)), dict(zip(names, map(float, costs), strict=True)), bound=100_000.0
    )
    assert chosen == frozenset(["l1", "l3", "l4", "l6", "l8", "l9"])
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("seed", range(4))
def test_of_many_layers_the_best_but_for_little_without_highs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the linear relaxation, which no subset exceeds: the best ratios, the last one in part."""
    random = np.random.default_rng(seed)
    gains, costs = random.integers(1_000, 100_000, 400).astype(float), random.lognormal(0.0, 1.5, 400)
    bound, cuts = 0.3 * costs.sum(), np.zeros((0, 400), dtype=np.bool_)
    order = np.argsort(-gains / costs)
    whole = int(np.searchsorted(np.cumsum(costs[order]), bound))
    left = bound - costs[order][:whole].sum()
    most = gains[order][:whole].sum() + gains[order][whole] * left / costs[order][whole]
    monkeypatch.setattr(knapsack, "_integer_program", None)
    found = most_gain(gains, costs, bound=bound, cuts=cuts)
    assert found is not None
    assert costs[found].sum() <= bound * (1.0 + 400 / 2 / STEPS)
    assert most - gains[found].sum() <= ENOUGH / STEPS * gains.sum()


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_highs_decides_on_few_of_many_layers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the layers costs much, so that hundreds of the others may make up for what is left of the bound."""
    random = np.random.default_rng(seed)
    gains = random.integers(1_000, 100_000, 1000).astype(float)
    costs = 0.03 * random.dirichlet(np.ones(1000))
    costs[random.choice(1000, 100, replace=False)] = 0.05 * random.lognormal(0.0, 1.0, 100)
    cuts, bound = random.random((10, 1000)) < 0.95, 0.05
    sizes, own = list[int](), knapsack._integer_program

    def counted(loss: Any, *rest: Any) -> Any:
        sizes.append(loss.size)
        return own(loss, *rest)

    monkeypatch.setattr(knapsack, "_integer_program", counted)
    found = most_gain(gains, costs, bound=bound, cuts=cuts)
    rows = [LinearConstraint(costs, ub=bound), LinearConstraint(cuts.astype(float), ub=cuts.sum(axis=1) - 1.0)]
    best = milp(-gains, constraints=rows, integrality=np.ones(1000), bounds=Bounds(0.0, 1.0))
    assert found is not None
    assert sizes == [FREE]
    assert costs[found].sum() <= bound * (1.0 + 1000 / 2 / STEPS)
    assert not (cuts <= found).all(axis=1).any()
    assert -best.fun - gains[found].sum() <= 0.001 * gains.sum()
