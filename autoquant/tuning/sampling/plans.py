"""What can be said of plans with the same settings of the whole model: predicted divergences, and chances.

From predicted divergences to measured drops lead the predictions corrected by what trials measured, and a curve. Both
are Bayesian least squares, which say something sensible with one trial and with none, and are fitted anew after each
(Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from scipy.special import ndtr, ndtri

from autoquant.threads import one_blas_thread
from autoquant.tuning.sampling.chances import Alike
from autoquant.tuning.sampling.coding import Codes, Layers
from autoquant.tuning.sampling.history import FAR, History
from autoquant.tuning.sampling.infeasible import Cuts, Infeasible
from autoquant.tuning.sampling.knapsack import most_gain
from autoquant.tuning.sampling.predictions import PredictionTable, number_of
from autoquant.tuning.sampling.problem import Problem
from autoquant.tuning.sampling.shared_costs import SharedKnapsack
from autoquant.tuning.sensitivity.request import Predictions
from autoquant.tuning.study.space import Parameters
from autoquant.tuning.study.trial import State, Trial

Array = NDArray[np.float64]
SPREAD = 0.6
"""By how much predictions of single layers are wrong before anything is measured, relative; one standard deviation."""
MEASURING = 0.1
"""The same of the measured divergence of a plan, whose layers' divergences do not just add up."""
OF_INPUTS = 1.0
"""The same of all layers' inputs together, beside weights: rounding them well, which takes most of the error from
weights, is not predicted."""
IN_VAIN = 0.01
"""By what share of a plan's divergence 16 bits of a layer's activations are to lower it at least."""
FACTORS = (0.25, 4.0)
"""By how much a prediction is corrected at most."""
MANY = 100
"""More trials than these are added up before corrections are fitted, not set against each other one by one."""
LEAST = 0.05
"""Drops below this share of the largest within tolerance count as that: they are noise, and have no logarithm."""
PRIOR, WEIGHT = 0.7, 3.0
"""What the logarithm of the drop scatters by around the curve, before anything is measured; worth so many trials."""


def with_best(parameters: Parameters, predictions: Predictions) -> Parameters:
    """The same plan with the best settings of every tunable: of the least divergence, of equals the preferred."""
    best = [min(own, key=lambda one: number_of(one.divergence)).parameters for own in predictions.values() if own]
    return {**parameters, **{name: value for settings in best for name, value in settings.items()}}


class Measured(NamedTuple):
    """Trials by their places in the history, their drops, and what was predicted at first, by its parts.

    Shapes (trials,), (trials,) and (trials, parts).
    """

    places: NDArray[np.intp]
    drops: Array
    rows: Array


@dataclass(frozen=True)
class Plans:
    """Plans around `base`, which has all layers in INT8 and says which settings they have."""

    history: History
    base: Parameters
    table: PredictionTable

    @property
    def problem(self) -> Problem:
        """The search they are of."""
        return self.history.problem

    @cached_property
    def base_codes(self) -> Codes:
        """The codes of `base`."""
        return self.history.coding.encode(self.base)

    @cached_property
    def related(self) -> NDArray[np.intp]:
        """The places of all trials with the same settings of the whole model."""
        whole = self.history.coding.whole
        return np.flatnonzero((self.history.codes[:, whole] == self.base_codes[whole]).all(axis=1))

    @cached_property
    def factors(self) -> Array:
        """The factor of each part of predicted divergences, fitted to trials whose drop is not far off."""
        places, drops, rows = self.measured
        divergences = self.history.facts["divergence"][places]
        near = ~np.isnan(divergences) & (np.abs(drops) < FAR * self.history.max_drop)
        return corrections(rows[near], divergences[near], inputs=self.table.inputs)

    def divergence(self, codes: Codes) -> float:
        """The predicted divergence of a plan, corrected."""
        return math.fsum((self.table.row(codes) * self.factors).tolist())

    @cached_property
    def divergences(self) -> Array:
        """Of each switch what it adds to the predicted divergence with the settings of `base`, corrected."""
        return self.table.switch_costs(self.base_codes, self.factors)

    @cached_property
    def gains(self) -> Array:
        """Of each switch what it gains."""
        return np.array([self.problem.gains[name] for name in self.history.coding.switches], dtype=np.float64)

    def most_gain(self, *, bound: float, cuts: Cuts) -> Layers | None:
        """The switches to turn on for the most gain, whose predicted divergence is at most so much over the floor."""
        if self._shared is not None:
            return self._shared.most_gain(bound=bound, cuts=cuts)
        return most_gain(self.gains, self.divergences, bound=bound, cuts=cuts)

    def cost_of(self, on: Layers) -> float:
        """The predicted divergence of these switches, over the floor."""
        return float(self.divergences[on].sum()) if self._shared is None else self._shared.cost_of(on)

    def in_vain(self, on: Layers) -> bool:
        """Whether a layer has activations of 16 bits that make next to no difference to the predicted divergence."""
        if self._shared is None:
            return False
        cost, needs = self.cost_of(on), self._shared.needs
        wide = np.flatnonzero(~on & on[needs] & (needs != np.arange(on.size)))
        return any(
            self.cost_of(on | (np.arange(on.size) == one)) - cost <= IN_VAIN * (self.floor + cost) for one in wide
        )

    @cached_property
    def _shared(self) -> SharedKnapsack | None:
        """The knapsack where there is a choice of 16 bits."""
        shared = self.table.shared_costs(self.base_codes, self.factors)
        if not shared:
            return None
        switches = self.history.coding.switches
        alone = np.array([one.on is True for one in switches.values()])
        place = {name: number for number, name in enumerate(switches)}
        needs = np.array([place.get(one.layer, place[name]) for name, one in switches.items()], dtype=np.intp)
        return SharedKnapsack(self.gains, np.where(alone, self.divergences, 0.0), shared, needs)

    @cached_property
    def floor(self) -> float:
        """The predicted divergence of what is in INT8 in every plan."""
        return self.divergence(self.plan(np.zeros(self.gains.size, dtype=np.bool_)))

    @cached_property
    def curve(self) -> Curve:
        """From predicted divergence to drop."""
        positive = self._predicted > 0.0
        finite = sorted(self.divergences[np.isfinite(self.divergences)].tolist())
        typical = self.floor + sum(finite) / 10 or 1.0
        drops = self.measured.drops[positive]
        found = fit_curve(
            self._predicted[positive], drops, self.history.max_drop, typical=typical, least=self.history.least_drop
        )
        return replace(found, scatter=max(found.scatter, self.history.least_scatter))

    @cached_property
    def alike(self) -> Alike:
        """The residuals of these trials, but for those whose drop is far off."""
        near = (self._predicted > 0.0) & (np.abs(self.measured.drops) < FAR * self.history.max_drop)
        logs = _log_ratios(self.measured.drops[near], self.history.max_drop, self.history.least_drop)
        return Alike(self.measured.rows[near] * self.factors, self.curve.residuals(self._predicted[near], logs))

    def chance(self, codes: Codes) -> float:
        """That a plan is within tolerance, by the curve and by what was measured of plans that are alike."""
        row = self.table.row(codes) * self.factors
        if not np.isfinite(row).all():
            return 0.0
        return self.curve.chance(math.fsum(row.tolist()), *self.alike.of(row))

    @cached_property
    def near_misses(self) -> NDArray[np.intp]:
        """The places of related trials that just missed, those that gain most first."""
        history, places = self.history, self.measured.places
        near = places[history.near_misses[places]]
        return near[np.argsort(-history.gains[near], kind="stable")]

    @property
    def bracket(self) -> tuple[float, float]:
        """The largest predicted divergence that was proven to be within, 0 without, and the smallest proven not to."""
        facts = self.history.facts[self.measured.places]
        within, missed = self._predicted[facts["within"]], self._predicted[facts["missed"]]
        return float(within.max(initial=0.0)), float(missed.min(initial=math.inf))

    def plan(self, int8: Layers) -> Codes:
        """That with just these layers in INT8."""
        return self.history.coding.with_int8(self.base_codes, int8)

    @cached_property
    def infeasible(self) -> Infeasible:
        """What the trials exclude."""
        return Infeasible(self.history)

    @cached_property
    def cuts(self) -> Cuts:
        """The smallest sets of layers that are assumed to be infeasible with the settings of `base`."""
        return self.infeasible.assumed_infeasible(self.base_codes)

    @cached_property
    def measured(self) -> Measured:
        """Related trials whose drop was measured, and whose predicted divergence is a number."""
        trials = [self.history.trials[place] for place in self.related.tolist()]
        facts = self.history.facts[self.related]
        rows = self.table.rows([trial.parameters for trial in trials], self.history.codes[self.related])
        known = np.isfinite(facts["drop"]) & np.isfinite(rows.sum(axis=1))
        undecided = np.flatnonzero(known & facts["undecided"])
        known[[row for row in undecided.tolist() if self._rescored(trials[row])]] = False
        return Measured(self.related[known], facts["drop"][known], rows[known])

    @cached_property
    def _predicted(self) -> Array:
        """The predicted divergences of these trials, corrected."""
        return np.asarray((self.measured.rows * self.factors).sum(axis=1))

    def _rescored(self, trial: Trial) -> bool:
        """Whether the plan of a trial that was undecided was then scored on everything, which says more."""
        return any(other.state is State.DONE for other in self.history.trials_of(trial.parameters))


@one_blas_thread()
def corrections(parts: Array, measured: Array, *, inputs: NDArray[np.bool_] | None = None) -> Array:
    """By which factor each part of a predicted divergence is to be multiplied; shape (parts,).

    `parts`, shape (trials, parts), are the predicted divergences of what a trial had in INT8, 0 for the others;
    `measured`, shape (trials,), above 0, is what was measured of the trial, in any unit: only ratios matter. `inputs`
    are the parts that are of layers' inputs, where these are apart from their weights.
    """
    size = parts.shape[1]
    together = np.zeros(size) if inputs is None else np.where(inputs, OF_INPUTS, 0.0)
    sums = parts.sum(axis=1)
    use = (sums > 0.0) & (measured > 0.0)
    if not use.any():
        return np.ones(size)
    parts, sums = parts[use], sums[use]
    target = measured[use] / math.exp(float(np.mean(np.log(measured[use] / sums))))
    variance = (MEASURING * (target + sums)) ** 2
    if len(parts) <= max(MANY, size):
        prior = SPREAD**2 * parts + np.outer(parts @ together, together)
        found = 1.0 + prior.T @ solve(prior @ parts.T + np.diag(variance), target - sums, assume_a="pos")
    else:  # the same, of as many equations as there are parts, not trials
        weighted = parts.T / variance
        shared = np.outer(together, together) / (SPREAD**2 + together @ together)
        precision = weighted @ parts + (np.eye(size) - shared) / SPREAD**2
        found = 1.0 + solve(precision, weighted @ (target - sums), assume_a="pos")
    return np.asarray(np.clip(found, *FACTORS))


@dataclass(frozen=True, slots=True)
class Curve:
    """drop / max_drop = (divergence / critical) ** slope, give or take: at `critical` the drop is just within.

    The logarithm of the ratio scatters by `scatter`, one standard deviation.
    """

    critical: float
    slope: float
    scatter: float

    def chance(self, divergence: float, mean: float = 0.0, variance: float = 1.0) -> float:
        """That a plan of this predicted divergence is within tolerance.

        `mean` and `variance`, in scatters, are what is expected of its residual.
        """
        if divergence <= 0.0:
            return 1.0
        if not math.isfinite(divergence):
            return 0.0
        expected = self.slope * math.log(divergence / self.critical) / self.scatter + mean
        return float(ndtr(-expected / math.sqrt(variance)))

    def residuals(self, divergences: Array, logs: Array) -> Array:
        """By how many scatters these logarithms of drop / max_drop are above the curve."""
        return np.asarray((logs - self.slope * np.log(divergences / self.critical)) / self.scatter)

    def divergence_at(self, chance: float) -> float:
        """The predicted divergence at which a plan is within tolerance with this chance."""
        return self.critical * math.exp(-self.scatter * float(ndtri(chance)) / self.slope)


def _log_ratios(drops: Array, max_drop: float, least: float) -> Array:
    """Logarithms of drop / max_drop; of the `least` drop that is told from none where that is more."""
    least = max(least, LEAST * max_drop if max_drop > 0.0 else 1e-9)
    return np.asarray(np.log(np.maximum(drops, least) / max(max_drop, least)))


def fit_curve(
    divergences: ArrayLike, drops: ArrayLike, max_drop: float, *, typical: float, least: float = 0.0
) -> Curve:
    """The curve through trials of known divergence and drop, those near the largest drop within counting most.

    Smaller drops than `least` count as that. Without any, `typical` is assumed to be the critical divergence, with
    little trust in it. Divergences are above 0.
    """
    y = _log_ratios(np.asarray(drops, dtype=np.float64), max_drop, least)
    if not y.size:
        return Curve(typical, 1.0, 3.0)
    x = np.log(np.asarray(divergences, dtype=np.float64))
    weight = 1.0 / (1.0 + y**2)
    middle_x, middle_y = np.average(x, weights=weight), np.average(y, weights=weight)
    x, y = x - middle_x, y - middle_y
    slope_precision = (PRIOR / 0.3) ** 2  # of a prior of 1 +- 0.3 for the slope
    slope = float((weight @ (x * y) + slope_precision) / (weight @ (x * x) + slope_precision))
    slope = min(max(slope, 0.3), 3.0)
    variance = (WEIGHT * PRIOR**2 + weight @ (y - slope * x) ** 2) / (WEIGHT + weight.sum())
    return Curve(math.exp(middle_x - middle_y / slope), slope, math.sqrt(float(variance)))
