"""The chance that a plan is within tolerance: by the curve, and by what plans of which it shares layers have lost.

Which samples fall to another class is chance, but the same chance for the same layers with the same settings: their
quantization errors are the same numbers in every plan. So what a plan loses more, or less, than the curve has it, is
expected of others as far as they share its divergence (kriging; Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, section 2.2): a plan that differs little from one that missed is hardly another throw of the dice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from autoquant.threads import one_blas_thread

Array = NDArray[np.float64]
SHARED = 0.7
"""The part of the variance around the curve that plans with the same layers and settings share."""
MOST = 100
"""So many trials at most are compared with, the latest."""


@dataclass(frozen=True, eq=False)
class Alike:
    """Plans with `residuals` (T,): by how much, in scatters, the logarithm of their drop is above the curve.

    `rows` (T, tunables) are their divergences by tunable, above 0 in INT8: equal where settings are, practically.
    """

    rows: Array
    residuals: Array

    def of(self, row: Array) -> tuple[float, float]:
        """The mean and the variance of the residual of another plan, in scatters, by its divergences (tunables,)."""
        if not len(self.residuals):
            return 0.0, 1.0
        to = SHARED * likeness(self._latest, row[np.newaxis])[:, 0]
        mean = float(to @ self._weights)
        return mean, max(1.0 - float(to @ self._solved(to)), 1.0 - SHARED)

    @cached_property
    def _latest(self) -> Array:
        return self.rows[-MOST:]

    @cached_property
    def _factor(self) -> tuple[Array, bool]:
        """Cholesky's, of the covariance of these residuals: well conditioned, as each has a part of its own."""
        covariance = SHARED * likeness(self._latest, self._latest) + (1.0 - SHARED) * np.eye(len(self._latest))
        with one_blas_thread():
            factor, lower = cho_factor(covariance, lower=True, check_finite=False)
        return np.asarray(factor), bool(lower)

    @cached_property
    def _weights(self) -> Array:
        """Of each trial by how much the mean moves with what a plan shares with it."""
        return self._solved(self.residuals[-MOST:])

    def _solved(self, values: Array) -> Array:
        return np.asarray(cho_solve(self._factor, values, check_finite=False))


def likeness(some: Array, others: Array) -> Array:
    """The square of the correlation of the errors of plans, (some, others): by the divergence that they share."""
    totals = np.sqrt(np.outer(some.sum(axis=1), others.sum(axis=1)))
    shared = np.stack([(some == other) @ other for other in others], axis=1)
    return np.asarray(np.square(np.divide(shared, totals, out=np.zeros_like(totals), where=totals > 0.0)))
