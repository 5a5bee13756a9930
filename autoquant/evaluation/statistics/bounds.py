"""Upper confidence bounds of the true drop, from paired samples: exact of a 0/1 metric, by the bootstrap of others.

Exact. Of n pairs, `losses` are right in FP32 and wrong in INT8, `gains` the other way round; both are discordant, D
together. In the trinomial model a pair is discordant with probability psi, and then a loss with probability theta, so
that the drop is psi (2 theta - 1). What is not asked for, psi, is treated as by Berger and Boos (1994, "P values
maximized over a confidence set for the nuisance parameter", JASA 89): the p-value of a drop is the largest over a
Clopper-Pearson interval of confidence 1 - gamma for psi, plus gamma.

The statistic is (losses - gains - n drop) / sqrt(n (s - drop^2)), s = sqrt((D / n)^2 + drop^2): the score statistic of
Tango (1998) with a simpler s. It orders outcomes, and any order gives an exact test; this one has (0, 0) as the
strongest evidence against a drop, so that no discordant pair in n gives the rule of three. The plain difference of
counts does not: it cannot tell no pair from a loss and a gain, and gives 4.1 / n instead of 3.0 / n.

Bootstrap, bias-corrected and accelerated: Efron (1987), "Better bootstrap confidence intervals", JASA 82; Efron and
Tibshirani (1993), chapter 14. It is accurate to second order, not exact: too low where few samples make up all of the
drop, and unreliable for constant samples or fewer than FEWEST. scipy.stats.bootstrap computes the same, but holds, or
goes through, samples^2 values for the jackknife, of which a mean has no need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, inf

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.quiet import no_progress

GAMMA = 0.02
"""Part of the error that is spent on the interval of psi."""
GRID = 24
"""Values of psi that the largest p-value is taken over. It is flat in psi, being of a standardized statistic."""
STEPS, FEW = (32, 8), 20
"""Drops that are tried above the largest one found, with up to FEW discordant pairs and with more.

As outcomes come and go at its edge, the p-value is not quite monotone in the drop; of many pairs each weighs little.
"""
NEVER = 1e-4
"""Part of the error that is given to numbers of discordant pairs too unlikely to be considered."""
PRECISION = 1e-3
"""Of the bound, as a part of its distance from the observed drop; it is rounded up."""
FEWEST = 100
"""Samples that a bootstrap takes to bound anything, for whoever is to rely on it."""
LEAST, TAIL = 4999, 50
"""Resamples: at least so many, and so many in the tail that the bound cuts off."""
MOST = 200_000
COSTLY = 999
"""Resamples of a statistic that is not a mean."""
BLOCKS = 100
"""Parts that are left out in turn for a statistic that is not a mean (the grouped jackknife)."""
CHUNK = 4_000_000
"""Values in memory at once."""


@cache
def exact_upper(losses: int, gains: int, samples: int, *, confidence: float) -> float:
    """The upper confidence bound, one-sided, of the true drop: the largest that is not disproven at 1 - confidence.

    >>> round(exact_upper(0, 0, 1000, confidence=0.95), 4)
    0.003
    """
    if min(losses, gains) < 0 or losses + gains > samples or samples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"needs {samples} pairs or fewer, a confidence in (0, 1), got {losses}, {gains}, {confidence}")

    def disproven(*drops: float) -> list[bool]:
        return _are_disproven(np.asarray(drops), losses, gains, samples, confidence=confidence)

    observed = (losses - gains) / samples
    most = _likely_psi(losses + gains, samples, GAMMA * (1.0 - confidence))[1]
    steps = STEPS[losses + gains > FEW]
    beyond = _crossing(disproven, observed, most, observed)
    while beyond < most:
        farther = np.linspace(beyond, min(beyond + 0.5 * (beyond - observed), most), steps + 2)[1:-1]
        again = [float(drop) for drop, out in zip(farther, disproven(*farther), strict=True) if not out]
        if not again:
            break
        beyond = _crossing(disproven, again[-1], most, observed)
    return beyond


def is_disproven(drop: float, losses: int, gains: int, samples: int, *, confidence: float) -> bool:
    """Whether the counts disprove, with this confidence, that the true drop is this one."""
    return _are_disproven(np.asarray([drop]), losses, gains, samples, confidence=confidence)[0]


def _are_disproven(drops: Array, losses: int, gains: int, samples: int, *, confidence: float) -> list[bool]:
    """The same of several drops (any,)."""
    alpha = 1.0 - confidence
    psi = _likely_psi(losses + gains, samples, GAMMA * alpha)
    tails = np.zeros(len(drops))
    possible = np.maximum(psi[0], np.abs(drops)) <= psi[1]
    if possible.any():
        tails[possible] = _largest_tails(drops[possible], losses, gains, samples, psi, alpha)
    return [bool(GAMMA * alpha + tail <= alpha) for tail in tails]


def _crossing(disproven: Callable[[float], list[bool]], possible: float, beyond: float, observed: float) -> float:
    """A drop just above the largest possible one, by halving between one that is possible and one that is not."""
    while beyond - possible > PRECISION * (beyond - observed):
        middle = 0.5 * (possible + beyond)
        possible, beyond = (possible, middle) if disproven(middle)[0] else (middle, beyond)
    return beyond


@cache
def _likely_psi(discordant: int, samples: int, gamma: float) -> tuple[float, float]:
    """The Clopper-Pearson interval of confidence 1 - gamma for the share of discordant pairs."""
    from scipy.special import betaincinv

    low = betaincinv(discordant, samples - discordant + 1, gamma / 2) if discordant else 0.0
    high = betaincinv(discordant + 1, samples - discordant, 1 - gamma / 2) if discordant < samples else 1.0
    return float(low), float(high)


def _largest_tails(
    drops: Array, losses: int, gains: int, samples: int, psi: tuple[float, float], alpha: float
) -> Array:
    """The largest probability, over psi, of an outcome that speaks against a drop as much as the observed one does.

    One for each of the drops (D,), at least one, none of which is beyond the interval of psi.
    """
    from scipy.special import betainc

    low, drop = np.maximum(psi[0], np.abs(drops)), drops[:, np.newaxis]
    start, stop = np.sqrt(low)[:, np.newaxis], math.sqrt(psi[1])
    grid = (np.arange(GRID) * ((stop - start) / (GRID - 1)) + start) ** 2  # (D, GRID)
    grid[:, -1] = stop * stop
    first, last = _likely_pairs(low, psi[1], samples, alpha)
    pairs = np.arange(first.min(), last + 1)
    deviation = _deviation(pairs, drop, samples)
    own = _deviation(np.asarray(losses + gains), drop, samples)
    statistic = (losses - gains - samples * drop) / np.where(own > 0.0, own, np.inf)
    most = np.floor((pairs + samples * drop + statistic * deviation) / 2 + 1e-9)  # losses of these and fewer count
    chance = _binomial(pairs, samples, grid.reshape(-1, 1))  # (D * GRID, pairs)
    least, possible = NEVER * alpha / (last + 1.0 - first), most >= 0.0
    if len(drops) > 1:
        chance *= np.repeat(pairs >= first[:, np.newaxis], GRID, axis=0)
        least, possible = np.repeat(least, GRID)[:, np.newaxis], np.repeat(possible, GRID, axis=0)
    row, column = ((chance > least) & possible).nonzero()
    gain = 1.0 - np.minimum(np.maximum((1.0 + drop / np.maximum(grid, 1e-300)) / 2, 0.0), 1.0)
    counted = most[row // GRID, column]
    others = pairs[column] - counted
    below = betainc(np.maximum(others, 1.0), counted + 1.0, gain.ravel()[row])  # the binomial's cdf
    below[others <= 0.0] = 1.0
    tails = np.bincount(row, chance[row, column] * below, minlength=grid.size)
    tails += np.maximum(1.0 - chance.sum(axis=1), 0.0)
    return np.asarray(tails.reshape(grid.shape).max(axis=1) + NEVER * alpha)


def _deviation(pairs: Array, drop: Array, samples: int) -> Array:
    """What losses - gains is divided by, given the number of discordant pairs."""
    share = np.sqrt((pairs / samples) ** 2 + drop**2)
    return np.asarray(np.sqrt(samples * np.maximum(share - drop**2, 0.0)))


def _likely_pairs(low: Array, high: float, samples: int, alpha: float) -> tuple[Array, int]:
    """The fewest (D,) and most discordant pairs, all but a ten thousandth of alpha of what psi from low (D,) allows.

    By Bernstein's inequality.
    """
    much = math.log(2e4 / alpha)
    fewest = np.floor(samples * low - np.sqrt(2 * samples * low * (1 - low) * much) - much)
    most = math.ceil(samples * high + math.sqrt(2 * samples * high * (1 - high) * much) + much)
    return np.maximum(fewest, 0.0).astype(np.int64), min(most, samples)


def _binomial(count: Array, samples: int, share: Array) -> Array:
    """Probability of `count` of `samples`, each with probability `share`."""
    from scipy.special import gammaln, xlog1py, xlogy

    others = samples - count
    ways = gammaln(samples + 1) - gammaln(count + 1) - gammaln(others + 1)
    # one logarithm for each share; 0 times that of 0 is 0
    logs, others_logs = (np.maximum(each, -1e4) for each in (xlogy(1.0, share), xlog1py(1.0, -share)))
    return np.asarray(np.exp(ways + count * logs + others * others_logs))


def bca_upper(estimate: float, resampled: Array, jackknife: Array, *, confidence: float) -> float:
    """The upper confidence bound, one-sided, from a statistic's values on resamples and on all samples but some.

    The quantile of `resampled` at ndtr(z0 + (z0 + z) / (1 - a (z0 + z))), z0 = ndtri(share below the estimate, ties
    counting half), a = sum d^3 / (6 (sum d^2)^1.5) with d = mean(jackknife) - jackknife.
    """
    from scipy.special import ndtr, ndtri

    below = float(((resampled < estimate).mean() + (resampled <= estimate).mean()) / 2)
    away = jackknife.mean() - jackknife
    spread = float((away**2).sum())
    if not spread or not 0.0 < below < 1.0:
        return float(max(estimate, resampled.max()))
    acceleration = float((away**3).sum()) / (6.0 * spread**1.5)
    bias = float(ndtri(below))
    shifted = bias + float(ndtri(confidence))
    if acceleration * shifted >= 1.0:
        return float(resampled.max())
    return float(np.quantile(resampled, ndtr(bias + shifted / (1.0 - acceleration * shifted))))


def mean_upper(values: Array, *, confidence: float, seed: int) -> float:
    """The upper confidence bound of the mean that `values` (N,) were drawn from; infinite if they are all equal."""
    if (values == values[0]).all():
        return inf
    count, total = len(values), float(values.sum())
    random = np.random.default_rng(seed)
    resamples = min(max(LEAST, ceil(TAIL / (1.0 - confidence))), MOST)
    part = max(CHUNK // count, 1)
    # as uint32 the same numbers are drawn, in half the time
    means = [
        values[random.integers(count, size=(min(part, resamples - start), count), dtype=np.uint32)].mean(axis=1)
        for start in range(0, resamples, part)
    ]
    jackknife = (total - values) / (count - 1)
    return bca_upper(total / count, np.concatenate(means), jackknife, confidence=confidence)


def statistic_uppers(
    statistic: Callable[[Array], float],
    count: int,
    *,
    confidences: Sequence[float],
    seed: int,
    on_progress: Callable[[int, int], None] = no_progress,
) -> list[float]:
    """Upper confidence bounds of any statistic of the chosen ones of `count` samples; infinite if it never differs.

    All bounds come from the same resamples. Those that the statistic refuses (AUC, where one class is missing) are
    drawn again, up to as many as there are; blocks without which it refuses the rest are left out of the jackknife,
    unless fewer than two remain. Raises what the statistic raises beyond that. `on_progress` is told calls.
    """
    random = np.random.default_rng(seed)
    found: list[float] = []
    refused = 0
    total = statistic_calls(count)
    while len(found) < COSTLY:
        try:
            found.append(statistic(random.integers(count, size=count)))
        except (DataError, TrialError):
            refused += 1
            if refused > COSTLY:
                raise
        on_progress(len(found), total)
    if min(found) == max(found):
        return [inf] * len(confidences)
    everything = np.arange(count)
    blocks = np.array_split(random.permutation(count), min(BLOCKS, count))
    jackknife = _without_each(statistic, everything, blocks, lambda done: on_progress(COSTLY + done, total))
    estimate = statistic(everything)
    on_progress(total, total)
    return [bca_upper(estimate, np.asarray(found), jackknife, confidence=confidence) for confidence in confidences]


def statistic_calls(count: int) -> int:
    """How often such bounds call a statistic of so many samples, refusals not counted."""
    return COSTLY + min(BLOCKS, count) + 1


def _without_each(
    statistic: Callable[[Array], float], everything: Array, blocks: Sequence[Array], on_done: Callable[[int], None]
) -> Array:
    """The statistic of everything without each block in turn, as far as it takes what is left."""
    found: list[float] = []
    refusal: DataError | TrialError | None = None
    for done, block in enumerate(blocks, start=1):
        try:
            found.append(statistic(np.delete(everything, block)))
        except (DataError, TrialError) as error:
            refusal = error
        on_done(done)
    if refusal is not None and len(found) < 2:
        raise refusal
    return np.asarray(found)
