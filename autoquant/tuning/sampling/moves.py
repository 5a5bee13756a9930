"""The plan to try next once divergences can be predicted: what it is expected to gain for the time it takes decides.

The knapsack, an integer program that HiGHS solves where it is not small, gives the plans with most gain for bounds on
the divergence. Around the incumbent its plans are refinements: one more layer in INT8, or one for another. To these
come plans in which a layer has other settings than the best: those of a near miss are worth a try, as which of few
samples fall to another class is chance, as far as anybody can tell.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from autoquant.quiet import stdout_without
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import Problem, gain_of, int8_of, unit_of
from autoquant.tuning.study.space import Parameters, Suggestion, switch_of

CHANCES = (0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.03)
"""The knapsack's bounds are where plans are within with these chances."""
HOPELESS = 0.01
"""What is within with less than this chance is not tried."""
CHEAP = 0.15
"""The share of the samples that shows that a plan is out."""
NEAR = 3
"""A plan that differs in no more layers from the incumbent refines it."""
MISSES = 3
"""So many near misses have other settings tried."""
Array = NDArray[np.float64]
STEPS = 100_000
"""Costs are counted in so many steps up to the bound, to the nearest; gains that differ by less than one are equal.

HiGHS takes 0.999999 for 1: with whole numbers of this size that decides nothing.
"""
LEFT_OVER = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"
"""What HiGHS prints once in a thousand programs, for its developers, whatever its options say."""
NODES = 2_000
"""So many branches at most: a limit in time would not give the same plan on every machine."""
FEW, ALIKE = 10, 1e-3
"""Of so few layers all subsets are tried: 0.1 ms where HiGHS takes 7. It chooses where others are as good, in steps."""


@dataclass(frozen=True, slots=True)
class Move:
    """A plan: what it gains more than the incumbent, its predicted divergence, the chance that it is within.

    `changed` says in words which settings are not the best, or not those of trial `missed`, where it is one of these.
    """

    parameters: Parameters
    gain: float
    divergence: float
    chance: float
    changed: str = ""
    missed: int | None = None

    @property
    def worth(self) -> float:
        """The expected gain for the expected share of the samples; larger is better."""
        return self.gain * self.chance / (self.chance + (1.0 - self.chance) * CHEAP)


def next_move(plans: Plans) -> Suggestion | None:
    """The move that is worth most, where any is left that is not hopeless."""
    every = (*knapsacks(plans), *alternatives(plans), *variants(plans))
    moves = [move for move in every if move.chance >= HOPELESS]
    best = max(moves, key=lambda move: (move.worth, -move.divergence), default=None)
    return None if best is None else _suggestion(plans, best)


def remaining_gain(plans: Plans) -> float:
    """What can still be gained at most: by the best plan that no trial excludes."""
    cuts = plans.infeasible.proven_infeasible(plans.base)
    most = most_gain(plans.problem.gains, plans.divergences, bound=math.inf, cuts=cuts)
    return -math.inf if most is None else plans.history.gain_over_incumbent(plans.plan(most))


def knapsacks(plans: Plans) -> Iterator[Move]:
    """The plans with most gain for each bound, that are better than the incumbent."""
    gains, cuts = plans.problem.gains, plans.infeasible.assumed_infeasible(plans.base)
    seen: set[frozenset[str] | None] = {None, frozenset()}
    for chance in CHANCES:
        bound = plans.curve.divergence_at(chance) - plans.floor
        int8 = most_gain(gains, plans.divergences, bound=bound, cuts=cuts) if bound > 0.0 else None
        if int8 not in seen and int8 is not None:
            seen.add(int8)
            yield from _moves(plans, plans.plan(int8))


def alternatives(plans: Plans) -> Iterator[Move]:
    """The incumbent with one more layer in INT8, where that was tried, but with other settings than the best.

    Other settings of the layer itself, or of the one whose divergence is the largest.
    """
    incumbent = plans.history.incumbent
    if incumbent is None or incumbent not in plans.related:
        return
    int8, cuts = int8_of(incumbent.parameters, plans.problem), plans.infeasible.assumed_infeasible(plans.base)
    for layer in plans.problem.layers:
        if layer in int8 or not any(cut <= int8 | {layer} for cut in cuts):
            continue
        more = plans.plan(int8 | {layer})
        for tunable in dict.fromkeys([layer, max(sorted(int8), key=plans.divergences.__getitem__, default=layer)]):
            for prediction in plans.predictions.get(tunable, ()):
                if math.isfinite(prediction.divergence):
                    words = ", ".join(f"{name} {value}" for name, value in prediction.parameters.items())
                    yield from _moves(plans, {**more, **prediction.parameters}, changed=words)


def variants(plans: Plans) -> Iterator[Move]:
    """The near misses of most gain, each with other settings of all layers at once.

    Those of a single layer hardly change which samples fall to another class.
    """
    problem = plans.problem
    gains = {trial.number: gain_of(int8_of(trial.parameters, problem), problem) for trial in plans.near_misses}
    most = sorted(plans.near_misses, key=lambda trial: (-gains[trial.number], trial.number))[:MISSES]
    for trial, changed in product(most, list(_everywhere(problem))):
        own = {name: value for name, value in changed.items() if value in problem.dimensions[name]}
        words = ", ".join(dict.fromkeys(f"{name.rpartition(':')[2]} {value}" for name, value in own.items()))
        yield from _moves(plans, {**trial.parameters, **own}, changed=words, missed=trial.number)


def _everywhere(problem: Problem) -> Iterator[Parameters]:
    """Each value of each setting of layers, and each pair of such, for all layers that have these settings."""
    switches = {switch_of(layer) for layer in problem.layers}
    names = [name for name in problem.dimensions if unit_of(name) and name not in switches]
    settings: dict[str, list[str]] = {name.rpartition(":")[2]: [] for name in names}
    for name in names:
        settings[name.rpartition(":")[2]].append(name)
    values = {
        setting: dict.fromkeys(value for name in own for value in problem.dimensions[name])
        for setting, own in settings.items()
    }
    for some in (*combinations(settings, 1), *combinations(settings, 2)):
        for chosen in product(*(values[setting] for setting in some)):
            yield {name: value for setting, value in zip(some, chosen, strict=True) for name in settings[setting]}


def _moves(plans: Plans, parameters: Parameters, *, changed: str = "", missed: int | None = None) -> Iterator[Move]:
    """A plan as a move, where it is worth one."""
    if plans.infeasible.is_open(parameters):
        gain, divergence = plans.history.gain_over_incumbent(parameters), plans.divergence(parameters)
        yield Move(parameters, gain, divergence, plans.curve.chance(divergence), changed, missed)


def _suggestion(plans: Plans, move: Move) -> Suggestion:
    incumbent, problem = plans.history.incumbent, plans.problem
    int8 = int8_of(move.parameters, problem)
    before = frozenset[str]() if incumbent is None else int8_of(incumbent.parameters, problem)
    odds = f"predicted divergence of {move.divergence:.3g}, {move.chance:.0%} likely to be within tolerance"
    if move.missed is not None:
        words = f"refine: trial {move.missed}, a near miss, with {move.changed} in all layers ({odds})"
        return Suggestion(move.parameters, words, "refine")
    if incumbent is not None and len(int8 ^ before) <= NEAR:
        more, fewer = ", ".join(sorted(int8 - before)), ", ".join(sorted(before - int8))
        words = f"{more} in INT8 again" + (f" for {fewer} in float" if fewer else "")
        words += f" with {move.changed}" if move.changed else ""
        return Suggestion(move.parameters, f"refine: {words} ({odds})", "refine")
    low, high = plans.bracket
    proven = f"bracket {low:.3g}..{high:.3g}" if math.isfinite(high) else f"over {low:.3g}"
    return Suggestion(move.parameters, f"knapsack: most gain for a {odds} ({proven})", "knapsack")


def most_gain(
    gains: Mapping[str, float], costs: Mapping[str, float], *, bound: float, cuts: Sequence[Collection[str]] = ()
) -> frozenset[str] | None:
    """The layers to have in INT8: the largest sum of gains whose sum of costs is at most `bound`, to half a step each.

    No layer whose cost is NaN or infinite, and not all layers of any of the `cuts`; None where a cut is empty, which
    leaves nothing. Of equally large gains the one with the least cost. Costs are not below 0; a layer without gain
    stays in float.
    """
    if any(not cut for cut in cuts):
        return None
    names = [name for name in gains if gains[name] > 0.0 and costs[name] <= bound and math.isfinite(costs[name])]
    rows = [[name in cut for name in names] for cut in cuts if set(cut) <= set(names)]
    if not names or (not rows and math.fsum(costs[name] for name in names) <= bound):
        return frozenset(names)
    gain = np.array([gains[name] for name in names], dtype=np.float64)
    cost = np.array([costs[name] for name in names], dtype=np.float64)
    chosen = _solve(gain, cost, bound, np.array(rows, dtype=np.float64).reshape(len(rows), len(names)))
    return frozenset(name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen)


def _solve(gain: Array, cost: Array, bound: float, cuts: Array) -> NDArray[np.bool_]:
    """Gains are counted in steps, and all costs together count for half of one: they only break ties."""
    whole = bound if 0.0 < bound < math.inf else float(cost.sum()) or 1.0
    gain, cost = gain / gain.sum() * STEPS, np.rint(cost / whole * STEPS)
    most = STEPS + 0.5 * cost.size if math.isfinite(bound) else math.inf
    loss = 0.5 * cost / STEPS - gain
    found = _best_subset(loss, cost, most, cuts) if gain.size <= FEW else None
    return _integer_program(loss, cost, most, cuts) if found is None else found


def _best_subset(loss: Array, cost: Array, most: float, cuts: Array) -> NDArray[np.bool_] | None:
    """The subset of least loss, of all that there are; None where another one is as good."""
    allowed = np.flatnonzero(_sums(cost) <= most)
    for cut in cuts:
        allowed = allowed[_sums(cut)[allowed] < cut.sum()]
    losses = _sums(loss)[allowed]
    best = int(losses.argmin())
    if np.count_nonzero(losses <= losses[best] + ALIKE) > 1:
        return None
    return np.asarray(allowed[best] >> np.arange(cost.size) & 1, dtype=np.bool_)


def _sums(parts: Array) -> Array:
    """The sum of each subset of n parts, (2^n,): that with the number s has the parts whose bits are set in s."""
    sums = np.zeros(1)
    for part in parts:
        sums = np.concatenate([sums, sums + part])
    return sums


def _integer_program(loss: Array, cost: Array, most: float, cuts: Array) -> NDArray[np.bool_]:
    """The same by HiGHS: nothing where it finds nothing."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = [LinearConstraint(cuts, ub=cuts.sum(axis=1) - 1.0)] if cuts.size else []
    if math.isfinite(most):
        rows.append(LinearConstraint(cost, ub=most))
    integral = {"integrality": np.ones(loss.size), "bounds": Bounds(0.0, 1.0)}
    options = {"mip_rel_gap": 0.0, "node_limit": NODES}
    with stdout_without(LEFT_OVER):
        found = milp(loss, constraints=rows, **integral, options=options)
    return np.zeros(loss.size, dtype=np.bool_) if found.x is None else np.asarray(found.x > 0.5)
