"""The knapsack where costs are shared: a tensor of 8 bits costs once, if its maker or any of its readers is INT8.

With a choice of 16 bits the rounding of a tensor vanishes only where no layer around it has 8: so costs belong to sets
of switches, and are paid where any of a set is on. That is an integer program with a continuous variable for each
tensor; HiGHS solves it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoquant.quiet import stdout_without
from autoquant.tuning.sampling.knapsack import LEFT_OVER, NODES, STEPS, Array, Subset


@dataclass(frozen=True, slots=True)
class SharedCost:
    """A cost that is paid where any of these switches, by their places, is on."""

    cost: float
    switches: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SharedKnapsack:
    """Switches with gains and costs, shape (switches,), and costs that several of them share.

    `needs` has for each switch the place of another without which it means nothing, or its own.
    """

    gains: Array
    costs: Array
    shared: Sequence[SharedCost]
    needs: NDArray[np.intp]

    def cost_of(self, chosen: Subset) -> float:
        """What a subset costs."""
        together, sharing = self._together
        return float(self.costs[chosen].sum()) + float(together[(sharing & chosen).any(axis=1)].sum())

    @cached_property
    def _together(self) -> tuple[Array, Subset]:
        """The costs that are shared, and the switches that share each, shape (shared, switches)."""
        sharing = np.zeros((len(self.shared), self.gains.size), dtype=np.bool_)
        for row, one in zip(sharing, self.shared, strict=True):
            row[list(one.switches)] = True
        return np.array([one.cost for one in self.shared], dtype=np.float64), sharing

    def most_gain(self, *, bound: float, cuts: Subset) -> Subset | None:
        """The switches to turn on: the most gain whose costs are at most `bound`, as `knapsack.most_gain` has it."""
        if not cuts.any(axis=1).all():
            return None
        offered = (self.gains > 0.0) & (self.costs <= bound) & np.isfinite(self.costs)
        for one in self.shared:
            if not one.cost <= bound:  # NaN fails too
                offered[list(one.switches)] = False
        offered &= offered[self.needs]
        rows = cuts[~(cuts & ~offered).any(axis=1)]
        if not offered.any() or (not len(rows) and self.cost_of(offered) <= bound):
            return offered
        return self._solved(offered, bound, rows)

    def _solved(self, offered: Subset, bound: float, cuts: Subset) -> Subset:
        from scipy.optimize import Bounds, LinearConstraint, milp

        size = self.gains.size
        shared = [one for one in self.shared if offered[list(one.switches)].any()]
        costs = np.concatenate([np.where(offered, self.costs, 0.0), [one.cost for one in shared]])
        whole = bound if 0.0 < bound < math.inf else float(costs.sum()) or 1.0
        costs = costs / whole * STEPS
        gains = np.where(offered, self.gains, 0.0)
        loss = 0.5 * costs / max(float(costs.sum()), 1.0)
        loss[:size] -= gains / gains.sum() * STEPS
        rows, most = (
            [np.concatenate([cut, np.zeros(len(shared))]) for cut in cuts],
            [float(cut.sum()) - 1.0 for cut in cuts],
        )
        if math.isfinite(bound):
            rows.append(costs)
            most.append(bound / whole * STEPS + 0.5)
        for place, one in enumerate(shared, start=size):
            for switch in one.switches:
                rows.append(_row(len(costs), switch, place))
                most.append(0.0)
        for switch in np.flatnonzero(offered & (self.needs != np.arange(size))).tolist():
            rows.append(_row(len(costs), switch, int(self.needs[switch])))
            most.append(0.0)
        upper = np.concatenate([offered, np.ones(len(shared))]).astype(np.float64)
        whole_numbers = np.concatenate([np.ones(size), np.zeros(len(shared))])
        with stdout_without(LEFT_OVER):
            found = milp(
                loss,
                integrality=whole_numbers,
                bounds=Bounds(0.0, upper),
                constraints=[LinearConstraint(np.array(rows), ub=np.array(most))],
                options={"node_limit": NODES},
            )
        if found.x is None:
            return np.zeros(size, dtype=np.bool_)
        return np.asarray(found.x[:size] > 0.5)


def _row(size: int, switch: int, other: int) -> Array:
    """That a switch is on only where another variable is 1."""
    row = np.zeros(size)
    row[switch], row[other] = 1.0, -1.0
    return row
