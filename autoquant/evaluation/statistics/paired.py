"""Bounds of the true drop, on unseen data, from samples that both FP32 and INT8 were scored on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isinf
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.statistics.bounds import (
    FEWEST,
    exact_upper,
    is_disproven,
    mean_upper,
    statistic_calls,
    statistic_uppers,
)
from autoquant.evaluation.statistics.sequential import times_needed, upper_of_mean
from autoquant.evaluation.statistics.units import Units, by_unit, unit_bootstrap, unit_upper
from autoquant.quiet import no_progress

EXACT = "exact paired (trinomial)"
BETTING = "betting (bounded mean)"
BOOTSTRAP = "bootstrap (BCa)"
BY_UNIT = ", by unit"
TOO_FEW = f"none, as a bootstrap takes at least {FEWEST} samples"
ALL_EQUAL = "none, as a bootstrap is unreliable where all drops are equal"
SUSPICIOUS = 0.01
"""Level of the test whether INT8 is better than FP32."""
NEAR = 0.01
"""Precision, relative, of the number of samples that are needed."""
MANY = 300_000
"""Samples beyond which the normal approximation says how many are needed."""


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """The mean `drop` of paired `samples`, and their discordant pairs: right in FP32 alone (losses), in INT8 (gains).

    The counts are None where values are not 0 or 1.
    """

    samples: int
    drop: float
    losses: int | None = None
    gains: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper confidence bound, one-sided, of the true drop, in units of the metric, and how it was found.

    Infinite where nothing bounds it; `method` says why then.
    """

    value: float
    method: str


@dataclass(frozen=True, slots=True)
class GroupBound:
    """A class or slice: its drop, and confidence bounds of its true drop, each one-sided, corrected for all groups.

    Bounds are infinite where its samples give none. `losses` and `gains` count its discordant pairs, None where values
    are not 0 or 1.
    """

    label: str
    samples: int
    drop: float
    upper: float = math.inf
    lower: float = -math.inf
    losses: int | None = None
    gains: int | None = None


def sample_drops(baseline: Array, rows: Array, *, higher_is_better: bool) -> Array:
    """How much worse each sample is than in FP32, (N,), float64, from values per sample (N,) of both."""
    if baseline.shape != rows.shape or rows.ndim != 1:
        raise ValueError(f"needs one value a sample of both, got {baseline.shape} and {rows.shape}")
    before, after = baseline.astype(np.float64), rows.astype(np.float64)
    return np.asarray(before - after if higher_is_better else after - before)


def is_binary(*rows: Array) -> bool:
    """Whether all values are 0 or 1, so that drops are -1, 0 and 1."""
    return all(bool(np.isin(each, (0, 1)).all()) for each in rows)


def paired_drop(drops: Array, *, binary: bool) -> PairedDrop:
    """The mean, and the discordant pairs of `binary` drops, -1, 0 or 1, from the drop of each sample (N,)."""
    if not binary:
        return PairedDrop(len(drops), float(drops.mean()))
    losses, gains = int((drops > 0).sum()), int((drops < 0).sum())
    return PairedDrop(len(drops), (losses - gains) / len(drops), losses, gains)


def upper_bound(
    drops: Array,
    *,
    confidence: float,
    binary: bool,
    reach: float | None = None,
    units: Units | None = None,
    seed: int = 0,
) -> Bound:
    """The upper confidence bound of the true drop, from the drop of each sample (N,).

    Of `binary` drops, -1, 0 or 1, it is exact (bounds.py), and of others within `reach` of 0 it holds for any
    number of them (sequential.py). Where nobody knows how large a drop can be it is the bootstrap's, or none. Samples
    that come in `units` are independent from unit to unit only (units.py). Raises ValueError for no samples.
    """
    if not len(drops):
        raise ValueError("there is no bound from no samples")
    if units is not None:
        return _by_unit(drops, units, confidence=confidence, reach=1.0 if binary else reach, seed=seed)
    if not binary and reach is not None:
        return Bound(upper_of_mean(drops, bound=reach, alpha=1.0 - confidence), BETTING)
    if not binary:
        if len(drops) < FEWEST:
            return Bound(inf, TOO_FEW)
        return _bootstrapped(mean_upper(drops, confidence=confidence, seed=seed))
    observed = paired_drop(drops, binary=True)
    assert observed.losses is not None and observed.gains is not None
    return Bound(exact_upper(observed.losses, observed.gains, observed.samples, confidence=confidence), EXACT)


def _by_unit(drops: Array, units: Units, *, confidence: float, reach: float | None, seed: int) -> Bound:
    if reach is not None:
        return Bound(unit_upper(drops, units, bound=reach, alpha=1.0 - confidence), BETTING + BY_UNIT)
    if len(units) < FEWEST:
        return Bound(inf, TOO_FEW + BY_UNIT)
    return _bootstrapped(unit_bootstrap(drops, units, confidence=confidence, seed=seed), BY_UNIT)


def _bootstrapped(value: float, by_unit: str = "") -> Bound:
    """The bound of a bootstrap, of enough samples; infinite where all drops are equal."""
    return Bound(value, ALL_EQUAL if isinf(value) else BOOTSTRAP + by_unit)


def bootstrap_drop(
    baseline: Array,
    rows: Array,
    combine: Callable[[Array], float],
    *,
    higher_is_better: bool,
    confidences: Sequence[float],
    units: Units | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = no_progress,
) -> list[Bound]:
    """Upper confidence bounds of the drop of a score that is no mean, from the rows of both, first axis samples.

    There is none from few samples, or where all resamples have the same drop. The same samples are drawn from both, and
    for all bounds, and `combine` makes a score of them, some 2,200 times in all. Of `units` each is drawn whole.
    """

    def drop(chosen: Array) -> float:
        before, after = combine(baseline[chosen]), combine(rows[chosen])
        return before - after if higher_is_better else after - before

    count, suffix = (len(rows), "") if units is None else (len(units), BY_UNIT)
    if count < FEWEST:
        return [Bound(inf, TOO_FEW + suffix) for _ in confidences]
    statistic = drop if units is None else by_unit(drop, units)
    values = statistic_uppers(statistic, count, confidences=confidences, seed=seed, on_progress=on_progress)
    return [_bootstrapped(value, suffix) for value in values]


def bootstrap_calls(samples: int) -> int:
    """How often that makes a score of as many samples."""
    return 0 if samples < FEWEST else 2 * statistic_calls(samples)


def least_samples(max_drop: float, confidence: float) -> int | None:
    """The fewest samples that certify a 0/1 metric if no pair is discordant; None if no number does (max_drop <= 0)."""
    if max_drop <= 0.0:
        return None
    return _least(lambda samples: exact_upper(0, 0, samples, confidence=confidence) <= max_drop, 1, precision=0.0)


def least_bounded(max_drop: float, confidence: float, *, reach: float) -> int | None:
    """The fewest samples that certify drops within `reach` of 0, if all are 0; None if no number does."""
    return needed_bounded(np.zeros(1), max_drop, confidence=confidence, reach=reach)


def needed_bounded(drops: Array, max_drop: float, *, confidence: float, reach: float) -> int | None:
    """About how many samples with drops like these (N,), within `reach` of 0, would certify; None: no number does."""
    times = times_needed(drops, max_drop, bound=reach, alpha=1.0 - confidence)
    return None if times is None else max(ceil(times * len(drops)), 1)


def needed_samples(observed: PairedDrop, upper: float, max_drop: float, *, confidence: float) -> int | None:
    """About how many samples with losses and gains at these rates would certify; None where the drop is not less.

    `upper` is the bound from the `observed`. For 0/1 metrics by the exact bound, to one percent; for others by the
    bootstrap's: its distance from the drop falls with the square root of the samples, and where there is none for lack
    of samples it takes FEWEST. The rates are uncertain too: it is not a promise.
    """
    from scipy.special import ndtri

    remaining = max_drop - observed.drop
    if remaining <= 0.0:
        return None
    if isinf(upper):
        return FEWEST if observed.samples < FEWEST else None
    if observed.losses is None or observed.gains is None:
        return max(ceil(observed.samples * ((upper - observed.drop) / remaining) ** 2), 1)
    rates = observed.losses / observed.samples, observed.gains / observed.samples
    guess = ceil((float(ndtri(confidence)) / remaining) ** 2 * (sum(rates) - observed.drop**2))
    if guess > MANY:
        return guess

    def certify(samples: int) -> bool:
        losses, gains = ceil(rates[0] * samples - 1e-9), floor(rates[1] * samples + 1e-9)
        return is_disproven(max_drop, losses, min(gains, samples - losses), samples, confidence=confidence)

    return _least(certify, max(guess, 1), precision=NEAR)


def _least(enough: Callable[[int], bool], guess: int, *, precision: float) -> int:
    """The least number that is enough, to a relative precision, by doubling from a guess and halving."""
    few, many = 0, guess
    while not enough(many):
        few, many = many, 2 * many
    while many - few > max(precision * many, 1):
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def significantly_better(
    drops: Array, *, binary: bool, reach: float | None = None, units: Units | None = None, seed: int = 0
) -> bool:
    """Whether INT8 is better than FP32 by more than chance at 1 %, from drops (N,): a baseline to be suspicious of.

    Of binary drops by McNemar's exact test, one-sided, on the discordant pairs; of others, or by unit, by their bound.
    """
    from scipy.special import betainc

    if not binary or units is not None:
        level = 1.0 - SUSPICIOUS
        return upper_bound(drops, confidence=level, binary=binary, reach=reach, units=units, seed=seed).value < 0.0
    observed = paired_drop(drops, binary=True)
    assert observed.losses is not None and observed.gains is not None
    # The binomial tail: scipy.stats, which has it by name, takes most of a second to import.
    return observed.gains > 0 and bool(betainc(observed.gains, observed.losses + 1, 0.5) < SUSPICIOUS)


def group_bounds(
    drops: Array,
    groups: Array,
    *,
    max_drop: float,
    confidence: float,
    binary: bool,
    reach: float | None = None,
    units: Units | None = None,
    seed: int = 0,
) -> tuple[GroupBound, ...]:
    """Bounds of each class or slice, from drops (N,) and labels (N,) of groups; the worst first.

    Upper bounds hold for all groups at once with this confidence, and so do lower bounds (Bonferroni). Worst are groups
    that are proven to drop more than `max_drop`, then those of the largest drop.
    """
    if len(groups) != len(drops):
        raise ValueError(f"needs a label for each sample, got {len(groups)} for {len(drops)}")
    labels, group = np.unique(groups, return_inverse=True)
    each = 1.0 - (1.0 - confidence) / len(labels)
    parts = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    found = []
    for label, part in zip(labels, parts, strict=True):
        own, own_units = paired_drop(drops[part], binary=binary), None if units is None else units.part(part)
        options: dict[str, Any] = {"confidence": each, "binary": binary, "reach": reach, "seed": seed}
        upper, lower = (
            sign * upper_bound(sign * drops[part], units=own_units, **options).value for sign in (1.0, -1.0)
        )
        found.append(GroupBound(str(label), own.samples, own.drop, upper, lower, own.losses, own.gains))
    return tuple(sorted(found, key=lambda one: (one.lower <= max_drop, -one.drop, -one.upper, one.label)))
