"""The layers to have in INT8: a knapsack with cuts, solved exactly, but for what no trial is worth of many layers.

Few layers are in question: where one has far more gain for its cost than the last one that fits, or far less, every
good subset has it, or none. Lagrange's multiplier gives a bound for all subsets, and for each layer the price, by how
much a subset with the other choice for it stays behind that bound (Martello and Toth, Knapsack Problems, 1990, section
2.2.3). The core, the layers of least price, is tried in all ways; so good a subset is found by that, that of the others
few can change. HiGHS takes over where they are not few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoquant.quiet import stdout_without

Array = NDArray[np.float64]
Subset = NDArray[np.bool_]
"""Of each layer whether it is one of them; with a first axis, several subsets."""
STEPS = 100_000
"""Costs are counted in so many steps up to the bound, to the nearest; gains that differ by less than one are equal.

HiGHS takes 0.999999 for 1: with whole numbers of this size that decides nothing.
"""
LEFT_OVER = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"
"""What HiGHS prints once in a thousand programs, for its developers, whatever its options say."""
NODES = 2_000
"""So many branches at most: a limit in time would not give the same plan on every machine."""
CORE, ALIKE = 12, 1e-3
"""Of so few layers all subsets are tried: 1 ms where HiGHS takes 7. It chooses where others are as good, in steps."""
MANY, ENOUGH = 100, 10.0
"""Of more layers a subset is taken that is by the bound so many steps behind the best at most: a tenth of the gain for
which a trial is worth its time. The more layers, the nearer to the bound comes a subset of the core.
"""
FREE = 150
"""HiGHS decides on so many layers at most, those of least price: of 1,000 in question that takes a sixth of the time,
and loses 0.01 % of the gain, 0.06 % at most.
"""
WAYS, TRIED = 4_000, 32
"""So many ways at most may the other layers change, and so many are tried with all subsets; else HiGHS takes less."""


def most_gain(gains: Array, costs: Array, *, bound: float, cuts: Subset) -> Subset | None:
    """The layers to have in INT8: the largest sum of gains whose sum of costs is at most `bound`, to half a step each.

    No layer whose cost is NaN or infinite, and not all layers of any of the `cuts`; None where a cut is empty, which
    leaves nothing. Of equally large gains the one with the least cost; of more than MANY layers one that is smaller by
    ENOUGH will do. Costs are not below 0; a layer without gain stays in float.
    """
    if not cuts.any(axis=1).all():
        return None
    offered = (gains > 0.0) & (costs <= bound) & np.isfinite(costs)
    rows = cuts[~(cuts & ~offered).any(axis=1)][:, offered]
    if not offered.any() or (not len(rows) and math.fsum(costs[offered]) <= bound):
        return offered
    chosen = np.zeros(gains.size, dtype=np.bool_)
    chosen[offered] = _Program.of(gains[offered], costs[offered], bound, rows).solved()
    return chosen


@dataclass(frozen=True)
class _Core:
    """The layers of least price, and the costs and losses of each subset of them, shape (2^layers,).

    Subset number s has the layers whose bits are set in s.
    """

    layers: NDArray[np.intp]
    costs: Array
    losses: Array


@dataclass(frozen=True)
class _Program:
    """Choose the subset of least loss whose cost is at most `most`, and that has not all layers of any cut."""

    loss: Array
    cost: Array
    most: float
    cuts: Subset

    @classmethod
    def of(cls, gain: Array, cost: Array, bound: float, cuts: Subset) -> _Program:
        """Gains are counted in steps, and all costs together count for half of one: they only break ties."""
        whole = bound if 0.0 < bound < math.inf else float(cost.sum()) or 1.0
        gain, cost = gain / gain.sum() * STEPS, np.rint(cost / whole * STEPS)
        most = STEPS + 0.5 * cost.size if math.isfinite(bound) else math.inf
        return cls(0.5 * cost / STEPS - gain, cost, most, cuts)

    def solved(self) -> Subset:
        """The subset; the one that HiGHS finds where several are as good, or too many are in question."""
        multiplier = self._multiplier()
        reduced = self.loss + multiplier * self.cost
        order = np.argsort(np.abs(reduced), kind="stable")
        core = _Core(order[:CORE], _sums(self.cost[order[:CORE]]), _sums(self.loss[order[:CORE]]))
        chosen = reduced < 0.0
        chosen[core.layers] = False
        least = float(np.minimum(reduced, 0.0).sum()) - (multiplier * self.most if multiplier else 0.0)
        losses = self._losses(chosen, core)
        gap = float(losses.min()) - least + ALIKE
        if chosen.size > MANY and gap <= ENOUGH:
            return _with_core(chosen, core, int(losses.argmin()))
        free = (np.abs(reduced) <= gap) | (chosen.size <= CORE)
        free[order[FREE:]] = False
        outside = free.copy()
        outside[core.layers] = False
        starts = _changed(chosen, np.flatnonzero(outside), np.abs(reduced), gap)
        found = None if starts is None else self._best_of(starts, core)
        return self._rest(free, (reduced < 0.0) & ~free) if found is None else found

    def _best_of(self, starts: Subset, core: _Core) -> Subset | None:
        """The best of these subsets with any subset of the core; None where another is as good, or it takes long."""
        order = np.argsort(core.costs, kind="stable")
        # Last: where not even the empty one fits.
        smallest = np.append(np.minimum.accumulate(core.losses[order]), math.inf)
        places = np.searchsorted(core.costs[order], self.most - starts @ self.cost, side="right") - 1
        bounds = starts @ self.loss + smallest[places]
        best, seen = math.inf, list[tuple[float, int, int]]()
        for tried, start in enumerate(np.argsort(bounds, kind="stable").tolist()):
            if not bounds[start] <= best + ALIKE or not math.isfinite(bounds[start]):
                break
            if tried == TRIED:
                return None
            found = self._losses(starts[start], core)
            least = np.argpartition(found, min(1, found.size - 1))[:2].tolist()
            seen += [(float(found[subset]), start, subset) for subset in least]
            best = min(best, float(found.min()))
        as_good = [(start, subset) for loss, start, subset in seen if loss <= best + ALIKE]
        if len(as_good) != 1:
            return None
        ((start, subset),) = as_good
        return _with_core(starts[start], core, subset)

    def _multiplier(self) -> float:
        """What a step of cost is worth: the ratio of the layer that the bound cuts through, the best ones first."""
        if self.cost.sum() <= self.most:
            return 0.0
        ratio = np.divide(-self.loss, self.cost, out=np.full(self.cost.size, math.inf), where=self.cost > 0.0)
        order = np.argsort(-ratio, kind="stable")
        place = int(np.searchsorted(np.cumsum(self.cost[order]), self.most, side="right"))
        return max(float(ratio[order[place]]), 0.0)

    def _losses(self, chosen: Subset, core: _Core) -> Array:
        """The loss of `chosen` with each subset of the core, shape (2^core,); infinite where that is not allowed."""
        allowed = core.costs <= self.most - self.cost[chosen].sum()
        missing = self.cuts & ~chosen
        inside = missing[:, core.layers]
        binding = np.count_nonzero(missing, axis=1) == np.count_nonzero(inside, axis=1)
        excluded = np.zeros(allowed.size, dtype=np.bool_)
        excluded[inside[binding] @ (1 << np.arange(core.layers.size))] = True
        for bit in range(core.layers.size):  # and all that have more
            pairs = excluded.reshape(-1, 2, 1 << bit)
            pairs[:, 1] |= pairs[:, 0]
        return np.where(allowed & ~excluded, core.losses + self.loss[chosen].sum(), math.inf)

    def _rest(self, free: Subset, chosen: Subset) -> Subset:
        """The same by HiGHS, which decides on the layers that are `free`; none of these where it finds nothing."""
        missing = self.cuts & ~chosen
        rows = missing[~(missing & ~free).any(axis=1)][:, free]
        found = chosen.copy()
        found[free] = _integer_program(
            self.loss[free], self.cost[free], self.most - self.cost[chosen].sum(), rows.astype(np.float64)
        )
        return found


def _with_core(chosen: Subset, core: _Core, subset: int) -> Subset:
    """The same layers with the subset of the core that has this number."""
    found = chosen.copy()
    found[core.layers] = subset >> np.arange(core.layers.size) & 1
    return found


def _changed(chosen: Subset, places: NDArray[np.intp], prices: Array, gap: float) -> Subset | None:
    """The same subset with other layers at these places, in all ways whose prices add up to `gap` at most.

    Shape (ways, layers); None where there are too many ways.
    """
    ways, spent = chosen[None], np.zeros(1)
    for place in places[np.argsort(-prices[places], kind="stable")].tolist():
        cheap = spent + prices[place] <= gap
        more = ways[cheap]
        if len(ways) + len(more) > WAYS:
            return None
        more[:, place] ^= True
        ways, spent = np.concatenate([ways, more]), np.concatenate([spent, spent[cheap] + prices[place]])
    return ways


def _sums(parts: Array) -> Array:
    """The sum of each subset of n parts, (2^n,): that with the number s has the parts whose bits are set in s."""
    sums = np.zeros(1)
    for part in parts:
        sums = np.concatenate([sums, sums + part])
    return sums


def _integer_program(loss: Array, cost: Array, most: float, cuts: Array) -> Subset:
    """By HiGHS: nothing where it finds nothing."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = [LinearConstraint(cuts, ub=cuts.sum(axis=1) - 1.0)] if cuts.size else []
    if math.isfinite(most):
        rows.append(LinearConstraint(cost, ub=most))
    integral = {"integrality": np.ones(loss.size), "bounds": Bounds(0.0, 1.0)}
    options = {"mip_rel_gap": 0.0, "node_limit": NODES}
    with stdout_without(LEFT_OVER):
        found = milp(loss, constraints=rows, **integral, options=options)
    return np.zeros(loss.size, dtype=np.bool_) if found.x is None else np.asarray(found.x > 0.5)
