"""A sequential test whether a drop is within tolerance: it may be stopped after any sample.

Betting on the mean of bounded values: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS-B 86 (2024). For a mean m, the capital K_t(m) = prod_{i <= t} (1 + lambda (X_i - m)) of a gambler who
stakes lambda on "the mean is larger than m" (their section 4) is a supermartingale, never negative, when the mean is at
most m. By Ville's inequality it ever reaches 1 / alpha with probability alpha at most, however often one looks. An
average of such capitals is one more (their mixture over a grid of bets, "diversified Kelly"): it needs no tuning, does
not depend on the order of the values within what was seen, and comes within log(number of bets) of the best of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from autoquant.array import Array

BETS = np.geomspace(0.95, 0.02, 10)
"""Stakes, as parts of the most that can never make the capital negative: 0.95, 0.62, 0.40, ..., 0.02."""
HALVINGS = 40
"""An end of an interval is found to within 2^-40 of the range."""


class Decision(StrEnum):
    """What is proven of the drop at the stated error rate: that it is more than `max_drop`, or within it."""

    UNDECIDED = "undecided"
    EXCEEDED = "exceeded"
    WITHIN = "within"


@dataclass(frozen=True, slots=True)
class Interval:
    """From low to high, in units of the metric."""

    low: float
    high: float


def upper_of_mean(values: Array, *, bound: float, alpha: float) -> float:
    """The upper confidence bound, one-sided, of the mean that `values` (N,), in [-bound, bound], were drawn from.

    The true mean is beyond it with probability `alpha` at most, whatever their distribution and number: one look at a
    capital is one of those that SequentialTest may take.
    """
    test = SequentialTest(bound, bound=bound, alpha=alpha)  # decided from the start: only the interval is asked for
    test.add(values)
    return test.upper()


def times_needed(values: Array, max_drop: float, *, bound: float, alpha: float) -> float | None:
    """How many times as many values, distributed like these, have a mean that is at most `max_drop` by upper_of_mean.

    Less than 1 where these are more than enough, None where no number is.
    """
    if max_drop >= bound:
        return 0.0
    distinct, counts = np.unique(values, return_counts=True)
    logs = _capitals(distinct, counts, max_drop, bound, Decision.WITHIN)
    return times_enough(logs, alpha)


def times_enough(logs: Array, alpha: float) -> float | None:
    """How many times as many values bring capitals, whose logs (bets,) after these are given, to 1 / alpha."""
    if logs.max() <= 0.0:
        return None
    goal, short, enough = -math.log(alpha), 0.0, 1.0
    while mean_capital(enough * logs) < goal:
        short, enough = enough, 2.0 * enough
        if math.isinf(enough):
            return None
    for _ in range(HALVINGS):
        middle = 0.5 * (short + enough)
        short, enough = (middle, enough) if mean_capital(middle * logs) < goal else (short, middle)
    return enough


def alpha_of(number: int, error_rate: float) -> float:
    """The share of the run's error rate that trial `number`, from 0, may spend: error_rate * 6 / (pi^2 (number + 1)^2).

    The drop of a trial is within tolerance or it is not, so only one of its two decisions can be wrong, with
    probability alpha at most at whatever sample one stops. The shares of all numbers add up to the error rate. So with
    that probability at most is any decision of the whole run wrong: however many trials there are, whenever each is
    stopped, and, as each plan has an order of its own (stream_order), whatever the sampler proposes after what it has
    seen. That is alpha-spending over a sequence of hypotheses without an end (Tian and Ramdas, "Online control of the
    familywise error rate", Statistical Methods in Medical Research 30, 2021).

    >>> round(sum(alpha_of(number, 0.05) for number in range(100_000)), 5)
    0.05
    """
    if number < 0 or not 0.0 < error_rate < 1.0:
        raise ValueError(f"needs a number of at least 0 and an error rate in (0, 1), got {number}, {error_rate}")
    return error_rate * 6.0 / (math.pi * (number + 1)) ** 2


class SequentialTest:
    """Decides whether the mean of values in [-bound, bound], which come one by one, is more than `max_drop`.

    Each of the two decisions is wrong with probability `alpha` at most, over all times at which it could be taken. The
    values must have that mean given those before them, as StreamOrder's have.
    """

    def __init__(self, max_drop: float, *, bound: float, alpha: float) -> None:
        if not (0.0 < bound < math.inf and 0.0 < alpha < 1.0 and math.isfinite(max_drop)):
            raise ValueError(f"needs a bound > 0, alpha in (0, 1), got {max_drop=}, {bound=}, {alpha=}")
        self._max_drop, self._bound, self._alpha = max_drop, bound, alpha
        self._decision = Decision.UNDECIDED
        if max_drop >= bound:
            self._decision = Decision.WITHIN  # nothing can be worse than that
        elif max_drop < -bound:
            self._decision = Decision.EXCEEDED
        self._logs = {side: np.zeros(len(BETS)) for side in _SIDES}
        self._values: list[Array] = []

    def add(self, values: Array) -> None:
        """The next values, (any,), in order. Raises ValueError for one that is beyond the bound or NaN."""
        values = np.asarray(values, np.float64)
        if not (np.abs(values) <= self._bound * (1.0 + 1e-9)).all():  # NaN fails too
            raise ValueError(f"values must be within {self._bound} of 0, the largest is {np.abs(values).max()}")
        if not len(values):
            return
        values = np.clip(values, -self._bound, self._bound)
        self._values.append(values)
        if self._decision is Decision.UNDECIDED:
            crossed = {side: self._crossed(values, side) for side in _SIDES}
            first = min(crossed, key=lambda side: crossed[side])
            if crossed[first] < len(values):
                self._decision = first

    @property
    def decision(self) -> Decision:
        """What is decided; once it is, it stays."""
        return self._decision

    @property
    def estimate(self) -> float:
        """The mean of the values so far, of which there must be one."""
        if not self._values:
            raise ValueError("there is no mean of no values")
        return float(np.concatenate(self._values).mean())

    def interval(self) -> Interval:
        """Where the mean is, by the same capitals: each end is right with probability 1 - alpha at any one time.

        So the interval agrees with the decision, which holds for all later times: `max_drop` is not inside once it is
        taken. Both ends together are right with probability 1 - 2 alpha.
        """
        low = self._end(Decision.EXCEEDED)
        if self._decision is Decision.EXCEEDED:
            low = max(low, self._max_drop)
        return Interval(low, max(low, self.upper()))

    def upper(self) -> float:
        """The upper end of the interval."""
        high = self._end(Decision.WITHIN)
        return min(high, self._max_drop) if self._decision is Decision.WITHIN else high

    def _crossed(self, values: Array, side: Decision) -> int:
        """The first value after which the capital on one side reaches 1 / alpha; their number if it never does."""
        gains = _gains(values, self._max_drop, self._bound, side)
        logs = self._logs[side][:, np.newaxis] + np.cumsum(np.log1p(BETS[:, np.newaxis] * gains), axis=1)
        self._logs[side] = logs[:, -1]
        goal = -math.log(self._alpha)
        if logs.max() < goal:  # no mean of capitals is larger, and to compute them takes long
            return len(values)
        reached = mean_capital(logs) >= goal
        return int(np.argmax(reached)) if reached.any() else len(values)

    def _end(self, side: Decision) -> float:
        """The mean, farthest from the end of the range on this side, that its capital disproves; by halving."""
        disproven, left = (-self._bound, self._bound) if side is Decision.EXCEEDED else (self._bound, -self._bound)
        if not self._values:
            return disproven
        values, counts = np.unique(np.concatenate(self._values), return_counts=True)
        for _ in range(HALVINGS):
            middle = 0.5 * (disproven + left)
            if mean_capital(_capitals(values, counts, middle, self._bound, side)) >= -math.log(self._alpha):
                disproven = middle
            else:
                left = middle
        return float(disproven)


_SIDES = (Decision.EXCEEDED, Decision.WITHIN)


def _gains(values: Array, mean: float, bound: float, side: Decision) -> Array:
    """What a stake of 1 wins on each value, at least -1: EXCEEDED bets that the true mean is larger than `mean`,
    WITHIN that it is smaller.

    It falls as `mean` grows for EXCEEDED, and grows with it for WITHIN, so what is disproven is all up to an end.
    """
    gains = (values - mean) / (bound + mean) if side is Decision.EXCEEDED else (mean - values) / (bound - mean)
    return np.asarray(gains)


def _capitals(values: Array, counts: Array, mean: float, bound: float, side: Decision) -> Array:
    """Logs of the capitals of all bets, (bets,), after values that came so many times."""
    gains = _gains(values, mean, bound, side)
    return np.asarray((np.log1p(BETS[:, np.newaxis] * gains) * counts).sum(axis=1))


def mean_capital(logs: Array) -> Array:
    """Log of the mean over bets (first axis) of capitals whose logs are given."""
    top = logs.max(axis=0)
    return np.asarray(top + np.log(np.exp(logs - top).mean(axis=0)))
