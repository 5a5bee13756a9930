"""Which evaluation samples are searched on, and which only certify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoquant.cache import Kept, keep, read_kept
from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.data.content import content_hashes, shared
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.statistics.bca import FEWEST
from autoquant.evaluation.statistics.paired import least_bounded, least_samples
from autoquant.tuning.certification.compute import counts_right

VERSION = 1
ALL_SEEN = "the search has seen all samples; give others with --certify"


@dataclass(frozen=True, eq=False)
class Division:
    """Positions of evaluation samples to search on and to certify with, ascending; `reason` says why there are none.

    `left_out` counts those that were drawn to certify and do not, because search or calibration have them as well.
    """

    search: Array
    certification: Array
    reason: str = ""
    left_out: int = 0

    @classmethod
    def undivided(cls, samples: int, reason: str) -> Division:
        """All are searched on."""
        everything = np.arange(samples)
        return cls(everything, everything[:0], reason)


def divided(
    data: Dataset,
    metric: Metric,
    baseline: Baseline,
    *,
    allowed: float,
    confidence: float,
    seed: int,
    calibration: Dataset | None = None,
) -> Division:
    """Keep half of the evaluation data aside, drawn by the seed, where that can be enough to certify anything.

    Samples of the same content stay together: those that are on both sides are searched on, and so are those that are
    in `calibration`, which is given where that may be.
    """
    half, least = len(data) // 2, least_certifiable(metric, baseline, allowed=allowed, confidence=confidence)
    if least is None:
        return Division.undivided(len(data), "no number of samples certifies a tolerance of 0")
    if half < least:
        reason = f"that takes at least {least:,} samples kept aside, and there are {len(data):,} in all"
        return Division.undivided(len(data), reason)
    order = np.random.default_rng(seed).permutation(len(data))
    search, kept = np.sort(order[half:]), np.sort(order[:half])
    hashes = content_hashes(data)
    seen = hashes[search] if calibration is None else np.concatenate([hashes[search], content_hashes(calibration)])
    both = shared(hashes[kept], seen)
    if half - len(both) < least:
        what = f"{len(both):,} of {half:,} samples to keep aside are those of the search or of calibration once more"
        return Division.undivided(len(data), f"{what}, and to certify takes at least {least:,}")
    return Division(np.sort(np.concatenate([search, kept[both]])), np.delete(kept, both), left_out=len(both))


def least_certifiable(metric: Metric, baseline: Baseline, *, allowed: float, confidence: float) -> int | None:
    """The fewest samples with which anything can be certified, if all goes well; None where no number is enough."""
    if allowed <= 0.0:
        return None
    if not metric.per_sample or metric.bounds is None:
        return FEWEST
    if counts_right(metric, baseline.score.rows):
        return least_samples(allowed, confidence)
    return least_bounded(allowed, confidence, reach=metric.bounds[1] - metric.bounds[0])


def keep_division(division: Division, path: Path, *, data: str) -> None:
    """Write which samples are for what, for whoever wants to compute a score again; `data` is the digest of them."""
    arrays = {"search": division.search, "certification": division.certification}
    facts = {"reason": division.reason, "left_out": division.left_out}
    keep(path, Kept(facts, arrays), key=data, version=VERSION)


def kept_division(path: Path, *, data: str) -> Division | None:
    """What `keep_division` wrote of data of this digest, None where there is nothing of that."""
    kept = read_kept(path, key=data, version=VERSION)
    if kept is None:
        return None
    arrays, facts = kept.arrays, kept.header
    return Division(arrays["search"], arrays["certification"], facts["reason"], facts.get("left_out", 0))
