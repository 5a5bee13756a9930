"""Bounds of the true drop where samples come in units that belong together, such as windows of one recording.

Samples of a unit are dependent, nobody knows how much, and units are drawn independently. What is bounded is the drop
of a sample, E[sum of a unit's drops] / E[its number of samples], from the sums and sizes of the units alone.

Of bounded drops by betting on units (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 86, 2024): if the true drop is d, the expectation of sum - d size is 0, so that a capital which bets on
it is a martingale, however dependent the samples of a unit are and however few units there are. A stake takes that no
unit is larger than `largest`. Cluster-robust tests (Obuchowski, Statistics in Medicine 17, 1998, of paired proportions;
Durkalski et al., Statistics in Medicine 22, 2003; in general a t test of G - 1 degrees of freedom on residuals by unit)
need many units with discordant pairs: where few units lose anything their variance is estimated as next to 0. Simulated
(tests/benchmarks/unit_coverage.py, 400 runs a case), bounds of 95 % by such a t test hold in 19 % of them with 10 units
of which one in 50 loses half, and in 83 % with 200; those of betting in all. That costs width: it is 3 / G at best.

Of others by the bootstrap of whole units (BCa, bounds.py; Field and Welsh, "Bootstrapping clustered data", JRSS B 69,
2007), from FEWEST units on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.statistics.bounds import CHUNK, LEAST, MOST, TAIL, bca_upper
from autoquant.evaluation.statistics.sequential import BETS, HALVINGS, mean_capital, times_enough


@dataclass(frozen=True, eq=False)
class Units:
    """The unit of each sample, `labels` (N,); no unit has more than `largest` samples."""

    labels: Array
    largest: int

    def __post_init__(self) -> None:
        if len(self.labels) and int(np.unique(self.labels, return_counts=True)[1].max()) > self.largest:
            raise ValueError(f"a unit has more than {self.largest} samples")

    def __len__(self) -> int:
        """How many units there are."""
        return len(self._numbers[0])

    def part(self, samples: Array) -> Units:
        """The units of some of the samples."""
        return Units(self.labels[samples], self.largest)

    def sums(self, values: Array) -> tuple[Array, Array]:
        """The sum of the values (N,) of each unit, and its size, both (units,), float64."""
        of = self._numbers[1]
        return np.bincount(of, values, minlength=len(self)), np.bincount(of, minlength=len(self)).astype(np.float64)

    def samples_of(self, units: Array) -> Array:
        """The places of all samples of units that are named by number; of one that is named twice, twice."""
        return np.concatenate([self._members[unit] for unit in units])

    @cached_property
    def _numbers(self) -> tuple[Array, Array]:
        names, of = np.unique(self.labels, return_inverse=True)
        return names, of

    @cached_property
    def _members(self) -> list[Array]:
        of = self._numbers[1]
        return np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of, minlength=len(self)))[:-1])


def unit_upper(drops: Array, units: Units, *, bound: float, alpha: float) -> float:
    """The upper confidence bound, one-sided, of the true drop, from drops (N,) in [-bound, bound], by betting on units.

    The true drop is beyond it with probability `alpha` at most. With units of one sample it is `upper_of_mean`.
    """
    sums, sizes = units.sums(np.clip(drops, -bound, bound))
    possible, disproven = -bound, bound
    for _ in range(HALVINGS):
        middle = 0.5 * (possible + disproven)
        if mean_capital(_logs(sums, sizes, middle, bound, units.largest).sum(axis=1)) >= -np.log(alpha):
            disproven = middle
        else:
            possible = middle
    return disproven


def units_needed(drops: Array, units: Units, max_drop: float, *, bound: float, alpha: float) -> int | None:
    """About how many units like these have a `unit_upper` that is at most `max_drop`; None where no number has."""
    if max_drop >= bound:
        return 1
    sums, sizes = units.sums(drops)
    times = times_enough(_logs(sums, sizes, max_drop, bound, units.largest).sum(axis=1), alpha)
    return None if times is None else max(ceil(times * len(units)), 1)


def _logs(sums: Array, sizes: Array, drop: float, bound: float, largest: int) -> Array:
    """Logs of what each bet (first axis) that the true drop is less than `drop` multiplies its capital by, by unit.

    A stake of 1 wins (drop size - sum) / (largest (bound - drop)), at least -1, which grows with `drop`.
    """
    gains = (drop * sizes - sums) / (largest * (bound - drop))
    return np.asarray(np.log1p(BETS[:, np.newaxis] * np.maximum(gains, -1.0)))


def unit_bootstrap(drops: Array, units: Units, *, confidence: float, seed: int) -> float:
    """The upper confidence bound of the true drop from resamples of whole units; infinite if all drops are equal."""
    if (drops == drops[0]).all():
        return inf
    sums, sizes = units.sums(drops)
    random, count = np.random.default_rng(seed), len(units)
    resamples = min(max(LEAST, ceil(TAIL / (1.0 - confidence))), MOST)
    part = max(CHUNK // count, 1)
    found = []
    for start in range(0, resamples, part):
        chosen = random.integers(count, size=(min(part, resamples - start), count), dtype=np.uint32)
        found.append(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    jackknife = (sums.sum() - sums) / (sizes.sum() - sizes)
    return bca_upper(float(drops.mean()), np.concatenate(found), jackknife, confidence=confidence)


def by_unit(statistic: Callable[[Array], float], units: Units) -> Callable[[Array], float]:
    """A statistic of samples as one of units that are chosen by number."""
    return lambda chosen: statistic(units.samples_of(chosen))
