"""What can be said of plans with the same settings of the whole model: predicted divergences, and chances.

From predicted divergences to measured drops lead the predictions corrected by what trials measured, and a curve. Both
are Bayesian least squares, which say something sensible with one trial and with none, and are fitted anew after each
(Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from autoquant.tuning.sampling.history import FAR, History, Infeasible
from autoquant.tuning.sampling.problem import Problem, globals_of, with_int8
from autoquant.tuning.sensitivity.request import Predictions
from autoquant.tuning.study.space import Parameters, switch_of
from autoquant.tuning.study.trial import State, Trial

Array = NDArray[np.float64]
SPREAD = 0.6
"""By how much predictions of single layers are wrong before anything is measured, relative; one standard deviation."""
MEASURING = 0.1
"""The same of the measured divergence of a plan, whose layers' divergences do not just add up."""
FACTORS = (0.25, 4.0)
"""By how much a prediction is corrected at most."""
LEAST = 0.05
"""Drops below this share of the largest within tolerance count as that: they are noise, and have no logarithm."""
PRIOR, WEIGHT = 0.7, 3.0
"""What the logarithm of the drop scatters by around the curve, before anything is measured; worth so many trials."""


def with_best(parameters: Parameters, predictions: Predictions) -> Parameters:
    """The same plan with the best settings of every tunable: of the least divergence, of equals the preferred."""
    best = [min(own, key=lambda one: _number(one.divergence)).parameters for own in predictions.values() if own]
    return {**parameters, **{name: value for settings in best for name, value in settings.items()}}


def predicted(parameters: Parameters, predictions: Predictions) -> float:
    """The sum of the predicted divergences of all tunables in INT8."""
    return math.fsum(_divergence_in(tunable, parameters, predictions) for tunable in predictions)


@dataclass(frozen=True)
class Plans:
    """Plans around `base`, which has all layers in INT8 and says which settings they have."""

    history: History
    base: Parameters
    predictions: Predictions

    @property
    def problem(self) -> Problem:
        """The search they are of."""
        return self.history.problem

    @cached_property
    def related(self) -> tuple[Trial, ...]:
        """All trials with the same settings of the whole model."""
        settings = globals_of(self.base)
        return tuple(trial for trial in self.history.trials if globals_of(trial.parameters) == settings)

    @cached_property
    def factors(self) -> Mapping[str, float]:
        """Tunable -> the factor of its predicted divergence, fitted to trials whose drop is not far off."""
        far = FAR * self.history.max_drop
        near = [trial for trial, drop in self._known if trial.divergence is not None and abs(drop) < far]
        parts = np.array([[self._raw(tunable, trial.parameters) for tunable in self.predictions] for trial in near])
        measured = np.array([trial.divergence for trial in near], dtype=np.float64)
        found = corrections(parts.reshape(len(near), len(self.predictions)), measured)
        return dict(zip(self.predictions, found.tolist(), strict=True))

    def divergence(self, parameters: Parameters) -> float:
        """The predicted divergence of a plan, corrected."""
        return math.fsum(self._raw(tunable, parameters) * self.factors[tunable] for tunable in self.predictions)

    @cached_property
    def divergences(self) -> Mapping[str, float]:
        """Layer with a switch -> its predicted divergence with the settings of `base`, corrected."""
        layers = self.problem.layers
        return {layer: self._raw(layer, self.base) * self.factors.get(layer, 1.0) for layer in layers}

    @cached_property
    def floor(self) -> float:
        """The predicted divergence of what is in INT8 in every plan."""
        return self.divergence(self.plan(frozenset()))

    @cached_property
    def curve(self) -> Curve:
        """From predicted divergence to drop."""
        known = [(self.divergence(trial.parameters), drop) for trial, drop in self._known]
        positive = [(divergence, drop) for divergence, drop in known if divergence > 0.0]
        finite = sorted(divergence for divergence in self.divergences.values() if math.isfinite(divergence))
        divergences, drops = [divergence for divergence, _ in positive], [drop for _, drop in positive]
        typical = self.floor + sum(finite) / 10 or 1.0
        return fit_curve(divergences, drops, self.history.max_drop, typical=typical)

    @property
    def near_misses(self) -> list[Trial]:
        """Related trials that just missed."""
        return [trial for trial, _ in self._known if self.history.near_miss(trial)]

    @property
    def bracket(self) -> tuple[float, float]:
        """The largest predicted divergence that was proven to be within, 0 without, and the smallest proven not to."""
        known = [(self.divergence(trial.parameters), trial.within) for trial, _ in self._known]
        within = [divergence for divergence, proven in known if proven]
        missed = [divergence for divergence, proven in known if proven is False]
        return max(within, default=0.0), min(missed, default=math.inf)

    def plan(self, int8: frozenset[str]) -> Parameters:
        """That with just these layers in INT8."""
        return with_int8(self.base, self.problem, int8)

    @cached_property
    def infeasible(self) -> Infeasible:
        """What the trials exclude."""
        return Infeasible(self.history)

    @cached_property
    def _known(self) -> tuple[tuple[Trial, float], ...]:
        """Related trials whose drop was measured, with that, and whose predicted divergence is a number."""
        known = [(trial, trial.drop) for trial in self.related if trial.drop is not None and not self._rescored(trial)]
        return tuple((trial, drop) for trial, drop in known if math.isfinite(drop) and self._is_predicted(trial))

    def _rescored(self, trial: Trial) -> bool:
        """Whether a trial was undecided and its plan then scored on everything, which says more."""
        others = self.history.trials_of(trial.parameters)
        return trial.undecided and any(other.state is State.DONE for other in others)

    def _is_predicted(self, trial: Trial) -> bool:
        return math.isfinite(sum(self._raw(tunable, trial.parameters) for tunable in self.predictions))

    def _raw(self, tunable: str, parameters: Parameters) -> float:
        """What was predicted for a tunable at first; nothing where it is in every plan and cannot be predicted."""
        divergence = _divergence_in(tunable, parameters, self.predictions)
        return divergence if math.isfinite(divergence) or tunable in self.problem.layers else 0.0


def _divergence_in(tunable: str, parameters: Parameters, predictions: Predictions) -> float:
    """The predicted divergence of a tunable, 0 in float; for settings without a prediction the worst."""
    if not parameters.get(switch_of(tunable), True):
        return 0.0
    own = predictions.get(tunable, ())
    for prediction in own:
        if all(parameters.get(name) == value for name, value in prediction.parameters.items()):
            return _number(prediction.divergence)
    return max((_number(prediction.divergence) for prediction in own), default=0.0)


def _number(divergence: float) -> float:
    """A divergence that can be compared."""
    return math.inf if math.isnan(divergence) else max(divergence, 0.0)


def corrections(parts: Array, measured: Array) -> Array:
    """By which factor each tunable's predicted divergence is to be multiplied; shape (tunables,).

    `parts`, shape (trials, tunables), are the predicted divergences of the tunables that a trial had in INT8, 0 for the
    others; `measured`, shape (trials,), above 0, is what was measured of the trial, in any unit: only ratios matter.
    """
    sums = parts.sum(axis=1)
    use = (sums > 0.0) & (measured > 0.0)
    if not use.any():
        return np.ones(parts.shape[1])
    parts, sums = parts[use], sums[use]
    target = measured[use] / math.exp(float(np.mean(np.log(measured[use] / sums))))
    prior = SPREAD**2 * parts
    covariance = prior @ parts.T + np.diag((MEASURING * (target + sums)) ** 2)
    found = 1.0 + prior.T @ np.linalg.solve(covariance, target - sums)
    return np.asarray(np.clip(found, *FACTORS))


@dataclass(frozen=True, slots=True)
class Curve:
    """drop / max_drop = (divergence / critical) ** slope, give or take: at `critical` the drop is just within.

    The logarithm of the ratio scatters by `scatter`, one standard deviation.
    """

    critical: float
    slope: float
    scatter: float

    def chance(self, divergence: float) -> float:
        """That a plan of this predicted divergence is within tolerance."""
        if divergence <= 0.0:
            return 1.0
        if not math.isfinite(divergence):
            return 0.0
        return float(ndtr(-self.slope * math.log(divergence / self.critical) / self.scatter))

    def divergence_at(self, chance: float) -> float:
        """The predicted divergence at which a plan is within tolerance with this chance."""
        return self.critical * math.exp(-self.scatter * float(ndtri(chance)) / self.slope)


def fit_curve(divergences: Sequence[float], drops: Sequence[float], max_drop: float, *, typical: float) -> Curve:
    """The curve through trials of known divergence and drop, those near the largest drop within counting most.

    Without any, `typical` is assumed to be the critical divergence, with little trust in it. Divergences are
    above 0.
    """
    least = LEAST * max_drop if max_drop > 0.0 else 1e-9
    y = np.log(np.maximum(np.asarray(drops, dtype=np.float64), least) / max(max_drop, least))
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
