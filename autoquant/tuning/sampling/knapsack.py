"""The knapsack: which layers to have in INT8 for a bound on the cost, as an integer program that HiGHS solves."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoquant.quiet import stdout_without

Array = NDArray[np.float64]
STEPS = 100_000
"""Costs are counted in so many steps up to the bound, to the nearest; gains that differ by less than one are equal.

HiGHS takes 0.999999 for 1: with whole numbers of this size that decides nothing.
"""
LEFT_OVER = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"
"""What HiGHS prints once in a thousand programs, for its developers, whatever its options say."""
NODES = 2_000
"""So many branches at most: a limit in time would not give the same plan on every machine."""


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
    from scipy.optimize import Bounds, LinearConstraint, milp

    whole = bound if 0.0 < bound < math.inf else float(cost.sum()) or 1.0
    gain, cost = gain / gain.sum() * STEPS, np.rint(cost / whole * STEPS)
    rows = [LinearConstraint(cuts, ub=cuts.sum(axis=1) - 1.0)] if cuts.size else []
    if math.isfinite(bound):
        rows.append(LinearConstraint(cost, ub=STEPS + 0.5 * cost.size))
    integral = {"integrality": np.ones(gain.size), "bounds": Bounds(0.0, 1.0)}
    options = {"mip_rel_gap": 0.0, "node_limit": NODES}
    with stdout_without(LEFT_OVER):
        found = milp(0.5 * cost / STEPS - gain, constraints=rows, **integral, options=options)
    return np.zeros(gain.size, dtype=np.bool_) if found.x is None else np.asarray(found.x > 0.5)
