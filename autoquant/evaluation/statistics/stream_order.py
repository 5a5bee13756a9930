"""The order in which a plan's samples are evaluated, with weights for an unbiased estimate of the drop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoquant.array import Array

STRATA = 10
"""Parts of equal size that samples are divided into, by the quantile of their margin."""
FALL = 0.8
"""Importance of a stratum relative to the one before it, of smaller margins."""
DRAWS = 4
"""Draws for each sample. Where all samples are evaluated the drop is known, and draws decide nothing any more."""


@dataclass(frozen=True, eq=False)
class StreamOrder:
    """A seeded order, and the draws that it serves.

    `order` (N,) are positions, each once. `draws` (T,) are positions, drawn independently and with replacement with
    probabilities p; `weights` (T,) are 1 / (N p) of each; `largest` is the largest weight that any of the N samples
    has, drawn or not, at most 2.

    X_t = drop[draws[t]] * weights[t] has the mean drop over all N samples as its expectation, exactly, given whatever
    came before t: E X = sum_i p_i drop_i / (N p_i). And |X_t| <= largest * max |drop|. So the X_t are what
    sequential.SequentialTest asks for, with bound = largest * (the bound on a drop). The drops must not depend on the
    draws: see `stream_order`.
    """

    order: Array
    draws: Array
    weights: Array
    largest: float

    def usable(self, evaluated: int) -> int:
        """How many draws, from the first, have drops that are known when order[:evaluated] were evaluated.

        Where to stop looking does not depend on the drop of the draw that comes next, so it is a stopping time.
        """
        return int(self._first[evaluated]) if evaluated < len(self._first) else len(self.draws)

    def values(self, drop: Array, start: int, stop: int) -> Array:
        """X_t for draws start to stop, from the drops (N,) by position, of which only evaluated ones are read."""
        return np.asarray(drop[self.draws[start:stop]] * self.weights[start:stop])

    @cached_property
    def _first(self) -> Array:
        """The first draw of each sample that was drawn, ascending, which is in the order of `order`."""
        return np.sort(np.unique(self.draws, return_index=True)[1])


def stream_order(count: int, *, margins: Array | None, seed: int | Sequence[int]) -> StreamOrder:
    """Draw from `count` samples, half uniformly, half by importance: predictions flip where the FP32 margin is small.

    `margins` (count,), None for uniform draws, are divided into STRATA of equal size by rank; p is half uniform and
    half in proportion to FALL^stratum, uniform within a stratum. The uniform half keeps weights at 2 at most, so that
    margins that tell nothing, or mislead, cost samples and never validity (Hesterberg, "Weighted average importance
    sampling and defensive mixture distributions", Technometrics 37, 1995). Draws are independent given the margins;
    strata need no quota.

    A sampler that has seen the drops of one plan in an order can propose another that looks good early in that very
    order; then the drops depend on the draws, and no test of them is valid. So each plan takes an order of its own:
    seed=(seed of the run, digest of the plan). A search that was cut off and one that was not then see the same,
    whatever the numbers of their trials. `order` has the samples by their first draw, those never drawn last.
    """
    if count < 1 or (margins is not None and margins.shape != (count,)):
        raise ValueError(f"needs samples, and a margin for each or None, got {count} and {margins}")
    random = np.random.default_rng(seed)
    share = np.full(count, 1.0 / count) if margins is None else 0.5 / count + 0.5 * _importance(margins)
    below = np.cumsum(share / share.sum())
    draws = np.searchsorted(below / below[-1], random.random(DRAWS * count), side="right")  # as random.choice does
    weights = 1.0 / (count * share)
    first = _first_draws(draws, count)
    never = np.flatnonzero(first == len(draws))
    order = np.concatenate([np.argsort(first)[: count - len(never)], random.permutation(never)])
    return StreamOrder(order, draws, weights[draws], float(weights.max()))


def _first_draws(draws: Array, count: int) -> Array:
    """The first draw of each sample (N,); the number of draws for those never drawn."""
    first = np.full(count, len(draws))
    first[draws[::-1]] = np.arange(len(draws))[::-1]  # of several values for one place the last is kept
    return first


def _importance(margins: Array) -> Array:
    """Probabilities (N,), falling from stratum to stratum."""
    rank = np.empty(len(margins), np.int64)
    rank[np.argsort(margins, kind="stable")] = np.arange(len(margins))
    stratum = rank * min(STRATA, len(margins)) // len(margins)
    size = np.bincount(stratum)
    part = FALL ** np.arange(len(size))
    return np.asarray((part / part.sum() / size)[stratum])


def check_points(total: int, *, first: int, growth: float) -> Iterator[int]:
    """After how many samples to look whether they are enough: `first`, then `growth` times as many each, and all.

    >>> list(check_points(100, first=32, growth=1.25))
    [32, 40, 50, 63, 79, 99, 100]
    """
    while first < total:
        yield first
        first = math.ceil(growth * first)
    yield total


def margins_of(outputs: Array, threshold: float = 0.5, k: int = 1) -> Array:
    """How far each prediction is from another one, (N,): the k-th highest score minus the next; 0 where there is none.

    `outputs` are scores (N, classes); of a single column (N, 1) it is |score - threshold|.

    >>> margins_of(np.asarray([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]]))
    array([0.5, 0. ])
    """
    if outputs.ndim != 2 or outputs.shape[1] < 1:
        raise ValueError(f"scores must be (samples, classes), got {outputs.shape}")
    scores = outputs.astype(np.float64)
    if scores.shape[1] == 1:
        return np.asarray(np.abs(scores[:, 0] - threshold))
    if scores.shape[1] <= k:
        return np.zeros(len(scores))
    top = np.partition(scores, (-k - 1, -k), axis=1)
    return np.asarray(top[:, -k] - top[:, -k - 1])
