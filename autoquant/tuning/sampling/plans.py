"""What can be said of plans with the same settings of the whole model: predicted divergences, and chances.

From predicted divergences to measured drops lead corrections by what trials measured, and a curve (fits.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.chances import Alike
from autoquant.tuning.sampling.coding import Codes, Layers
from autoquant.tuning.sampling.fits import Curve, corrections, fit_curve, log_ratios
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
IN_VAIN = 0.01
"""By what share of a plan's divergence 16 bits of a layer's activations are to lower it at least."""


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
        logs = log_ratios(self.measured.drops[near], self.history.max_drop, self.history.least_drop)
        return Alike(self.measured.rows[near] * self.factors, self.curve.residuals(self._predicted[near], logs))

    def outlook(self, codes: Codes) -> tuple[float, float]:
        """The predicted divergence of a plan, and the chance that it is within tolerance.

        By the curve and by what was measured of plans that are alike.
        """
        row = self.table.row(codes) * self.factors
        divergence = math.fsum(row.tolist())
        if not np.isfinite(row).all():
            return divergence, 0.0
        return divergence, self.curve.chance(divergence, *self.alike.of(row))

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
