"""From the rows of FP32 and INT8 on samples that the search has not seen to what may be claimed of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import UsageError
from autoquant.evaluation.metrics.metric import Metric, OnProgress
from autoquant.evaluation.statistics.paired import (
    SUSPICIOUS,
    Bound,
    GroupBound,
    PairedDrop,
    bootstrap_calls,
    bootstrap_drop,
    group_bounds,
    is_binary,
    needed_bounded,
    needed_samples,
    paired_drop,
    sample_drops,
    significantly_better,
    upper_bound,
)
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.evaluation.statistics.units import Units, units_needed
from autoquant.quiet import no_progress
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rows of two models tell of the drop from one to the other, whatever the tolerance.

    `bound` is the upper bound of the true drop; `suspicious` that the other is better by more than chance. Of a metric
    with bounds that is not 0 or 1, `drops` are drops, each within `reach` of 0; where samples come in `units`, of any
    metric that has values per sample.
    """

    seen: PairedDrop
    bound: Bound
    suspicious: bool
    guard: tuple[GroupBound, ...] = ()
    groups: Array | None = None
    drops: Array | None = None
    reach: float | None = None
    units: Units | None = None

    def needed(self, seen: PairedDrop, upper: float, max_drop: float, confidence: float, group: str = "") -> int | None:
        """About how many samples, or units, of all would certify all, or a group, at the rates seen."""
        own = self.groups == group if self.groups is not None and group else np.ones(self.seen.samples, bool)
        drops = None if self.drops is None else self.drops[own]
        if self.units is not None:
            units = self.units.part(own)
            total, seen = len(self.units), PairedDrop(len(units), seen.drop)
            if drops is not None and self.reach is not None:
                found = units_needed(drops, units, max_drop, bound=self.reach, alpha=1.0 - confidence)
            else:
                found = needed_samples(seen, upper, max_drop, confidence=confidence)
        elif drops is None or self.reach is None:
            total, found = self.seen.samples, needed_samples(seen, upper, max_drop, confidence=confidence)
        else:
            total = self.seen.samples
            found = needed_bounded(drops, max_drop, confidence=confidence, reach=self.reach)
        return None if found is None else math.ceil(found * total / seen.samples)


def find_evidence(
    baseline_rows: Array,
    rows: Array,
    *,
    metric: Metric,
    confidence: float,
    groups: Array | None = None,
    guard_max_drop: float = math.inf,
    units: Units | None = None,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> Evidence:
    """The drop with its bounds, from the rows of FP32 and INT8 on the same samples, of which there are some.

    `groups` (samples,) are labels of classes or slices, those first that are proven to drop more than `guard_max_drop`;
    `units` says which samples belong together. `on_progress` is told resamples. Raises UsageError for groups where the
    metric has no values per sample, DataError where it needs more data.
    """
    if metric.per_sample:
        named = None if groups is None else np.asarray([str(group) for group in groups.tolist()])
        return _per_sample(baseline_rows, rows, metric, confidence, named, guard_max_drop, units, seed)
    if groups is not None:
        raise UsageError("--guard", f"'{metric.name}' has no value for each sample", hint="guard another metric")
    return _as_whole(baseline_rows, rows, metric, confidence, units, seed, on_progress)


def lower_bound(
    baseline_rows: Array,
    rows: Array,
    *,
    metric: Metric,
    confidence: float,
    units: Units | None = None,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> float:
    """The lower confidence bound of the true drop, one-sided: minus the upper bound of the drop the other way round."""
    options: dict[str, Any] = {"metric": metric, "confidence": confidence, "units": units, "seed": seed}
    return -find_evidence(rows, baseline_rows, **options, on_progress=on_progress).bound.value


def compute_certificate(
    baseline_rows: Array,
    rows: Array,
    *,
    metric: Metric,
    max_drop: float,
    confidence: float,
    origin: Origin,
    groups: Array | None = None,
    unseen: tuple[str, ...] = (),
    guard_max_drop: float | None = None,
    left_out: int = 0,
    units: Units | None = None,
    assumes: str = "",
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> Certificate:
    """The certificate of an INT8 model, from the rows of FP32 and INT8 on the same samples, of which there are some.

    `groups` (samples,) are labels of classes or slices, each held to a drop of `guard_max_drop`, by default `max_drop`;
    `unseen` are labels of others, that no sample has, so that nothing is certified. `assumes` says what else than
    `units` the bound takes for granted. Raises as `find_evidence`.
    """
    each = max_drop if guard_max_drop is None else guard_max_drop
    found = find_evidence(
        baseline_rows,
        rows,
        metric=metric,
        confidence=confidence,
        groups=groups,
        guard_max_drop=each,
        units=units,
        seed=seed,
        on_progress=on_progress,
    )
    scores = metric.combine(baseline_rows), metric.combine(rows)
    return certificate_of(
        found,
        scores,
        metric=metric.name,
        max_drop=max_drop,
        guard_max_drop=each,
        confidence=confidence,
        origin=origin,
        unseen=unseen,
        left_out=left_out,
        assumes=assumes,
    )


def certificate_of(
    found: Evidence,
    scores: tuple[float, float],
    *,
    metric: str,
    max_drop: float,
    guard_max_drop: float,
    confidence: float,
    origin: Origin,
    unseen: tuple[str, ...] = (),
    left_out: int = 0,
    assumes: str = "",
) -> Certificate:
    """The certificate by what was found at this confidence, and by the `scores` of FP32 and INT8."""
    verdict = _verdict(found, max_drop, guard_max_drop)
    if verdict is Verdict.CERTIFIED and unseen:
        verdict = Verdict.MET
    needed = _needed(found, max_drop, guard_max_drop, confidence) if verdict is Verdict.MET and not unseen else None
    return Certificate(
        verdict=verdict,
        metric=metric,
        baseline=scores[0],
        score=scores[1],
        drop=found.seen.drop,
        upper_bound=found.bound.value,
        max_drop=max_drop,
        confidence=confidence,
        samples=found.seen.samples,
        method=found.bound.method,
        origin=origin,
        suspicious=found.suspicious,
        losses=found.seen.losses,
        gains=found.seen.gains,
        needed_samples=needed if found.units is None else None,
        guard=found.guard,
        guard_max_drop=guard_max_drop if found.guard else None,
        left_out=left_out,
        unseen=unseen,
        units=None if found.units is None else len(found.units),
        needed_units=None if found.units is None else needed,
        assumes=assumes,
    )


def counts_right(metric: Metric, *rows: Array) -> bool:
    """Whether a metric counts right answers: its rows are 0 or 1, and by its bounds could be nothing larger.

    What only happens to be 0 or 1 in the samples seen may be anything in others: shares, where a sample has several
    positions, and values beyond.
    """
    if metric.shares:
        return all(each.dtype == bool for each in rows)
    return metric.bounds == (0.0, 1.0) and is_binary(*rows)


def _per_sample(
    before: Array,
    after: Array,
    metric: Metric,
    confidence: float,
    groups: Array | None,
    each: float,
    units: Units | None,
    seed: int,
) -> Evidence:
    drops = sample_drops(before, after, higher_is_better=metric.higher_is_better)
    binary = counts_right(metric, before, after)
    reach = None if metric.bounds is None else metric.bounds[1] - metric.bounds[0]
    guarded: tuple[GroupBound, ...] = ()
    if groups is not None:
        guarded = group_bounds(
            drops, groups, max_drop=each, confidence=confidence, binary=binary, reach=reach, units=units, seed=seed
        )
    bound = upper_bound(drops, confidence=confidence, binary=binary, reach=reach, units=units, seed=seed)
    suspicious = significantly_better(drops, binary=binary, reach=reach, units=units, seed=seed)
    kept = None if binary and units is None else drops
    return Evidence(paired_drop(drops, binary=binary), bound, suspicious, guarded, groups, kept, reach, units)


def _as_whole(
    before: Array,
    after: Array,
    metric: Metric,
    confidence: float,
    units: Units | None,
    seed: int,
    on_progress: OnProgress,
) -> Evidence:
    higher = metric.higher_is_better
    bound, low = bootstrap_drop(
        before,
        after,
        metric.combine,
        higher_is_better=higher,
        confidences=(confidence, 1.0 - SUSPICIOUS),
        units=units,
        seed=seed,
        on_progress=on_progress,
    )
    seen = PairedDrop(len(after), drop_from(metric.combine(before), metric.combine(after), higher_is_better=higher))
    return Evidence(seen, bound, low.value < 0.0, units=units)


def bootstrap_seconds(rows: Array, samples: int, metric: Metric, clock: Callable[[], float]) -> float:
    """About how long the bounds of a metric that is no mean take on so many samples, by one call on these rows."""
    begin = clock()
    metric.combine(rows[np.arange(len(rows))])
    return (clock() - begin) * bootstrap_calls(samples) * samples / len(rows)


def _verdict(found: Evidence, max_drop: float, each: float) -> Verdict:
    if not within(found.seen.drop, max_drop) or any(not within(group.lower, each) for group in found.guard):
        return Verdict.MISSED
    if within(found.bound.value, max_drop) and all(within(group.upper, each) for group in found.guard):
        return Verdict.CERTIFIED
    return Verdict.MET


def _needed(found: Evidence, max_drop: float, each: float, confidence: float) -> int | None:
    """About how many samples would certify the whole and each group; None where one has no room left."""
    needed: list[int | None] = [0]
    if not within(found.bound.value, max_drop):
        needed.append(found.needed(found.seen, found.bound.value, max_drop, confidence))
    short = [group for group in found.guard if not within(group.upper, each)]
    if any(group.drop >= each for group in short):
        return None
    corrected = 1.0 - (1.0 - confidence) / len(found.guard) if found.guard else confidence
    for group in short:
        seen = PairedDrop(group.samples, group.drop, group.losses, group.gains)
        needed.append(found.needed(seen, group.upper, each, corrected, group.label))
    return None if None in needed else max(number for number in needed if number is not None)
