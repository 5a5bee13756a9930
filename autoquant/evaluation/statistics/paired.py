"""What samples that both FP32 and INT8 were scored on tell of the drop on data that neither has seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, inf, isinf

import numpy as np

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.statistics.bca import FEWEST, mean_upper, statistic_upper
from autoquant.evaluation.statistics.sequential import times_needed, upper_of_mean
from autoquant.evaluation.statistics.trinomial import exact_upper, is_disproven

EXACT = "exact paired (trinomial)"
BETTING = "betting (bounded mean)"
BOOTSTRAP = "bootstrap (BCa)"
TOO_FEW = f"none, as a bootstrap takes at least {FEWEST} samples"
ALL_EQUAL = "none, as a bootstrap of losses that are all equal tells nothing"
SUSPICIOUS = 0.01
"""Level of the test whether INT8 is better than FP32."""
NEAR = 0.01
"""Precision, relative, of the number of samples that are needed."""
MANY = 300_000
"""Samples beyond which the normal approximation says how many are needed."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What was seen: `drop`, the mean loss of the `samples`, and how many discordant pairs were losses and gains.

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
    upper: float
    lower: float
    losses: int | None = None
    gains: int | None = None


def loss_of(baseline: Array, rows: Array, *, higher_is_better: bool) -> Array:
    """How much worse each sample is than in FP32, (N,), float64, from values per sample (N,) of both."""
    if baseline.shape != rows.shape or rows.ndim != 1:
        raise ValueError(f"needs one value a sample of both, got {baseline.shape} and {rows.shape}")
    before, after = baseline.astype(np.float64), rows.astype(np.float64)
    return np.asarray(before - after if higher_is_better else after - before)


def is_binary(*rows: Array) -> bool:
    """Whether all values are 0 or 1, so that losses are -1, 0 and 1."""
    return all(bool(np.isin(each, (0, 1)).all()) for each in rows)


def paired(loss: Array, *, binary: bool) -> Paired:
    """What was seen, from losses (N,)."""
    if not binary:
        return Paired(len(loss), float(loss.mean()))
    losses, gains = int((loss > 0).sum()), int((loss < 0).sum())
    return Paired(len(loss), (losses - gains) / len(loss), losses, gains)


def upper_bound(loss: Array, *, confidence: float, binary: bool, reach: float | None = None, seed: int = 0) -> Bound:
    """The upper confidence bound of the mean loss on fresh data, from losses (N,).

    Of `binary` losses, -1, 0 or 1, it is exact (trinomial.py), and of others within `reach` of 0 it holds for any
    number of them (sequential.py). Where nobody knows how large a loss can be it is the bootstrap's, or none. Raises
    ValueError for no samples.
    """
    if not len(loss):
        raise ValueError("there is no bound from no samples")
    if not binary and reach is not None:
        return Bound(upper_of_mean(loss, bound=reach, alpha=1.0 - confidence), BETTING)
    if not binary:
        return _drawn(len(loss), lambda: mean_upper(loss, confidence=confidence, seed=seed))
    seen = paired(loss, binary=True)
    assert seen.losses is not None and seen.gains is not None
    return Bound(exact_upper(seen.losses, seen.gains, seen.samples, confidence=confidence), EXACT)


def _drawn(samples: int, upper: Callable[[], float]) -> Bound:
    """A bootstrap's bound, where so many samples give one."""
    if samples < FEWEST:
        return Bound(inf, TOO_FEW)
    value = upper()
    return Bound(value, ALL_EQUAL if isinf(value) else BOOTSTRAP)


def bootstrap_drop(
    baseline: Array,
    rows: Array,
    combine: Callable[[Array], float],
    *,
    higher_is_better: bool,
    confidence: float,
    seed: int = 0,
) -> Bound:
    """The upper confidence bound of the drop of a score that is no mean, from the rows of both, first axis samples.

    There is none from few samples, or where all resamples have the same drop. The same samples are drawn from both, and
    `combine` makes a score of them. It is called some 2,200 times.
    """

    def drop(chosen: Array) -> float:
        before, after = combine(baseline[chosen]), combine(rows[chosen])
        return before - after if higher_is_better else after - before

    return _drawn(len(rows), lambda: statistic_upper(drop, len(rows), confidence=confidence, seed=seed))


def least_samples(allowed: float, confidence: float) -> int | None:
    """The fewest samples that certify a 0/1 metric, if no pair is discordant; None if no number does (allowed <= 0)."""
    if allowed <= 0.0:
        return None
    few, enough = 0, 1
    while exact_upper(0, 0, enough, confidence=confidence) > allowed:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        if exact_upper(0, 0, middle, confidence=confidence) > allowed:
            few = middle
        else:
            enough = middle
    return enough


def least_bounded(allowed: float, confidence: float, *, reach: float) -> int | None:
    """The fewest samples that certify losses within `reach` of 0, if none loses; None if no number does."""
    return needed_bounded(np.zeros(1), allowed, confidence=confidence, reach=reach)


def needed_bounded(loss: Array, allowed: float, *, confidence: float, reach: float) -> int | None:
    """About how many samples would certify, losing as these (N,) do, within `reach` of 0; None where no number does."""
    times = times_needed(loss, allowed, bound=reach, alpha=1.0 - confidence)
    return None if times is None else max(ceil(times * len(loss)), 1)


def needed_samples(seen: Paired, upper: float, allowed: float, *, confidence: float) -> int | None:
    """About how many samples would certify, losing and gaining at the rates seen; None where the drop is not less.

    `upper` is the bound from what was seen. For 0/1 metrics by the exact bound, to one percent; for others by the
    bootstrap's: its distance from the drop falls with the square root of the samples, and where there is none for lack
    of samples it takes FEWEST. The rates are uncertain too: it is no promise.
    """
    from scipy.special import ndtri

    room = allowed - seen.drop
    if room <= 0.0:
        return None
    if isinf(upper):
        return FEWEST if seen.samples < FEWEST else None
    if seen.losses is None or seen.gains is None:
        return max(ceil(seen.samples * ((upper - seen.drop) / room) ** 2), 1)
    rates = seen.losses / seen.samples, seen.gains / seen.samples
    guess = ceil((float(ndtri(confidence)) / room) ** 2 * (sum(rates) - seen.drop**2))
    return guess if guess > MANY else _enough(rates, allowed, confidence, guess)


def _enough(rates: tuple[float, float], allowed: float, confidence: float, guess: int) -> int:
    """The samples, to a part of NEAR, that make the exact bound at these rates of losses and gains allowed."""

    def short(samples: int) -> bool:
        losses, gains = ceil(rates[0] * samples - 1e-9), floor(rates[1] * samples + 1e-9)
        return not is_disproven(allowed, losses, min(gains, samples - losses), samples, confidence=confidence)

    few, enough = 0, max(guess, 1)
    while short(enough):
        few, enough = enough, 2 * enough
    while enough - few > max(NEAR * enough, 1):
        middle = (few + enough) // 2
        few, enough = (middle, enough) if short(middle) else (few, middle)
    return enough


def significantly_better(loss: Array, *, binary: bool, reach: float | None = None, seed: int = 0) -> bool:
    """Whether INT8 is better than FP32 by more than chance at 1 %, from losses (N,): a baseline to be suspicious of.

    Of binary losses by McNemar's exact test, one-sided, on the discordant pairs; of others by their bound.
    """
    from scipy.stats import binomtest

    if not binary:
        return upper_bound(loss, confidence=1.0 - SUSPICIOUS, binary=False, reach=reach, seed=seed).value < 0.0
    seen = paired(loss, binary=True)
    assert seen.losses is not None and seen.gains is not None
    discordant = seen.losses + seen.gains
    return discordant > 0 and bool(binomtest(seen.gains, discordant, alternative="greater").pvalue < SUSPICIOUS)


def guard(
    loss: Array,
    groups: Array,
    *,
    allowed: float,
    confidence: float,
    binary: bool,
    reach: float | None = None,
    seed: int = 0,
) -> tuple[GroupBound, ...]:
    """Each class or slice by itself, from losses (N,) and labels (N,) of groups; the worst first.

    Upper bounds hold for all groups at once with this confidence, and so do lower bounds (Bonferroni). Worst are groups
    that are proven to lose more than is allowed, then those of the largest drop.
    """
    if len(groups) != len(loss):
        raise ValueError(f"needs a label for each sample, got {len(groups)} for {len(loss)}")
    labels, group = np.unique(groups, return_inverse=True)
    each = 1.0 - (1.0 - confidence) / len(labels)
    parts = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    found = []
    for label, part in zip(labels, parts, strict=True):
        seen = paired(loss[part], binary=binary)
        upper, lower = (
            sign * upper_bound(sign * loss[part], confidence=each, binary=binary, reach=reach, seed=seed).value
            for sign in (1.0, -1.0)
        )
        found.append(GroupBound(str(label), seen.samples, seen.drop, upper, lower, seen.losses, seen.gains))
    return tuple(sorted(found, key=lambda one: (one.lower <= allowed, -one.drop, -one.upper, one.label)))
