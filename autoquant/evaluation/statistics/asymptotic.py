"""A sequential test whether a drop is within tolerance where values have no bounds: it holds for many samples, nearly.

Where nothing is known of the largest value, nothing can be proven of a mean by few of the values: one that was not seen
may outweigh all others. What can be had is asymptotic: samples drawn without replacement have a mean that is nearly
normal around that of all N (Hajek, "Limiting distributions in simple random sampling from a finite population", 1960),
if no value makes up most of the variance. Its standard error, s / sqrt(n) sqrt(1 - n / N), is 0 when all were drawn.

How often one checks is known before: of L checks each may err with alpha / L, by the quantile q of Student's
distribution (alpha-spending by Bonferroni). For skewness g, as that of values of which some lose much, the quantile is
larger by |g| (2 q^2 + 1) / (6 sqrt(n)), the first term of the expansion of Cornish and Fisher for a mean over its
standard error (Johnson, "Modified t tests and confidence intervals for asymmetrical populations", JASA 73, 1978).

Asymptotic confidence sequences (Waudby-Smith et al., "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 52, 2024, arXiv:2103.06476) need no number of checks, but they are for values drawn
with replacement, and have no use of N. No check is made of fewer than FEWEST values, nor where a single one makes up
more than LARGEST of the variance. What is rarer than one in FEWEST may not be among them, however much it loses or
gains: no test knows of it then (tests/benchmarks/asymptotic_error.py).
"""

from __future__ import annotations

import math

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.statistics.sequential import Decision, Interval

FEWEST = 100
"""Values of which the mean may be taken to be nearly normal."""
LARGEST = 0.1
"""The largest share of the sum of squared deviations that a single value may have."""


class AsymptoticTest:
    """Decides whether the mean of `population` values, drawn without replacement, is more than `max_drop`.

    `checks` is how often it will be asked at most, `alpha` the probability, nearly, with which each of the two
    decisions is wrong over all of them. It has the methods of `SequentialTest`.
    """

    def __init__(self, max_drop: float, *, population: int, checks: int, alpha: float) -> None:
        if not (population >= 1 and checks >= 1 and 0.0 < alpha < 1.0 and math.isfinite(max_drop)):
            raise ValueError(f"needs alpha in (0, 1), got {max_drop=}, {population=}, {checks=}, {alpha=}")
        self._max_drop, self._population, self._alpha = max_drop, population, alpha / checks
        self._left = checks
        self._values = np.zeros(0)
        self._interval = Interval(-math.inf, math.inf)
        self._decision = Decision.UNDECIDED

    def add(self, values: Array) -> None:
        """The next values, (any,), in order, and a check of all. Raises ValueError for one that is not finite."""
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("values must be finite")
        self._values = np.concatenate([self._values, values])
        if self._decision is not Decision.UNDECIDED or not self._may_check():
            return
        self._left -= 1
        self._interval = self._checked()
        if self._interval.low > self._max_drop:
            self._decision = Decision.EXCEEDED
        elif self._interval.high < self._max_drop:
            self._decision = Decision.WITHIN

    @property
    def decision(self) -> Decision:
        """What is decided; once it is, it stays."""
        return self._decision

    @property
    def estimate(self) -> float:
        """The mean of the values so far, of which there must be one."""
        if not len(self._values):
            raise ValueError("there is no mean of no values")
        return float(self._values.mean())

    def interval(self) -> Interval:
        """Where the mean of all is, by the last check; each end is right with probability 1 - alpha, nearly."""
        return self._interval

    def _may_check(self) -> bool:
        count = len(self._values)
        if self._left == 0 or not FEWEST <= count < self._population:
            return False
        squares = np.square(self._values - self._values.mean())
        return bool(squares.max() <= LARGEST * squares.sum() and squares.sum() > 0.0)

    def _checked(self) -> Interval:
        from scipy.special import stdtrit

        count, off = len(self._values), self._values - self._values.mean()
        spread = math.sqrt(float(np.square(off).sum()) / (count - 1))
        quantile = float(stdtrit(count - 1, 1.0 - self._alpha))
        skewness = abs(float(np.mean((off / spread) ** 3)))
        quantile += skewness * (2.0 * quantile**2 + 1.0) / (6.0 * math.sqrt(count))
        error = spread / math.sqrt(count) * math.sqrt(1.0 - count / self._population)
        return Interval(self.estimate - quantile * error, self.estimate + quantile * error)


def checks_of(stops: list[int], population: int) -> int:
    """How many checks an AsymptoticTest takes at most after so many values each; at least 1."""
    return max(sum(FEWEST <= stop < population for stop in stops), 1)
