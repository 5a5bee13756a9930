"""The holdout: half of the evaluation data, or data of its own, where that can be enough to certify anything.

Groups of its samples, the classes or what the data names, are each held to a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, RunError, UsageError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.splits import (
    DataSplits,
    load_splits,
    save_splits,
    split_search_holdout,
    without_overlap,
)
from autoquant.evaluation.data.units import column_of
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.metrics.metric import Metric, OnProgress, require_labels
from autoquant.evaluation.scoring.baseline import Baseline, measure_baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.evaluation.statistics.bounds import FEWEST
from autoquant.evaluation.statistics.paired import least_bounded, least_samples
from autoquant.quiet import no_progress
from autoquant.tuning.certification.compute import counts_right
from autoquant.tuning.study.places import NOTHING
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder

ALL_SEEN = "the search has seen all samples; give other data with --certify"
DECLINED = "no certificate was requested (--certify none)"
CLASS = "class"
READ = 256
"""Samples that are read at a time, for their labels."""


def make_holdout(
    opened: DataSplits, request: SearchRequest, metric: Metric, baseline: Baseline, max_drop: float, folder: RunFolder
) -> DataSplits:
    """What trials are scored on, and the holdout; the folder keeps which samples these are.

    The split stays what it was when the first trial began: what trials have seen certifies nothing any more, and they
    are all scored on the same samples, whatever `certify` is when the run goes on.
    """
    confidence, unit = request.confidence, request.unit
    rows = baseline.score.rows
    least = least_certifiable(metric, rows, max_drop=max_drop, confidence=confidence, unit=unit)
    splits = load_splits(opened, folder.splits) if folder.begun else None
    if splits is None:
        splits = _split(opened, request, least, folder)
    splits = splits or opened.without_holdout(ALL_SEEN)
    if request.certify == NOTHING:
        return splits.without_holdout(DECLINED)
    if opened.has_own_holdout:
        splits = replace(splits, holdout=opened.holdout, reason="", left_out=0)
        splits = without_overlap(splits, least=least) if request.allow_overlap else splits
    if splits.holdout is not None:
        require_labels(metric, splits.holdout)
    return splits


def _split(opened: DataSplits, request: SearchRequest, least: int | None, folder: RunFolder) -> DataSplits | None:
    """The split of a run that begins, or the same again where its file is lost; None where trials have seen all.

    Raises RunError where it cannot be made again.
    """
    tables = folder.read_request() if folder.request.is_file() else {}
    known = tables.get("splits", {}).get("search")
    if known is None and (folder.begun or opened.has_own_holdout or request.certify == NOTHING):
        return None
    splits = split_search_holdout(opened, least=least, seed=request.seed, overlapping=request.allow_overlap)
    if known not in (None, splits.search.digest):
        raise RunError(str(folder.splits), "is lost, and cannot be made again", hint="put it back, or start a new run")
    save_splits(splits, folder.splits)
    if tables:
        folder.write_request({**tables, "splits": {"search": splits.search.digest}})
    return splits


def least_certifiable(metric: Metric, rows: Array, *, max_drop: float, confidence: float, unit: str = "") -> int | None:
    """The fewest samples, or units where these are named, with which anything can be certified, if all goes well.

    `rows` are what the metric measured of the FP32 model. None where no number is enough.
    """
    if max_drop <= 0.0:
        return None
    if not metric.per_sample or metric.bounds is None:
        return FEWEST
    if counts_right(metric, rows) and not unit:
        return least_samples(max_drop, confidence)
    return least_bounded(max_drop, confidence, reach=metric.bounds[1] - metric.bounds[0])


def holdout_subset(
    splits: DataSplits,
    baseline: Baseline,
    metric: Metric,
    open_float: Callable[[], Runner],
    batch_size: int,
    on_progress: OnProgress = no_progress,
) -> EvaluationSubset:
    """The holdout, which there is, with the FP32 model's score on it.

    That is part of the `baseline` of the evaluation data, or, of a holdout of its own, measured now: `open_float`
    opens the FP32 model.
    """
    data = splits.holdout
    assert data is not None
    if not splits.has_own_holdout:
        return EvaluationSubset.of(splits.evaluation, metric, baseline, data)
    with closing(open_float()) as runner:
        own = measure_baseline(runner, data, metric, batch_size=batch_size, key="", on_progress=on_progress)
    return EvaluationSubset.of(data, metric, own)


def groups_of(data: Dataset, guard: str) -> Array:
    """The group of each sample, (samples,): its label where `guard` is 'class', else what that names, see `column_of`.

    Raises DataError where there are no labels, or none that are classes, or no such name.
    """
    if guard == CLASS:
        return _classes(data)
    return column_of(data, guard, "--guard")


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each sample that certifies, (samples,); `unseen` are others, of which there is none among these."""

    labels: Array
    unseen: tuple[str, ...]

    @classmethod
    def of(cls, labels: Array, everything: Array) -> Groups:
        """Those of the samples that certify, among those of all evaluation samples."""
        return cls(labels, tuple(map(str, np.setdiff1d(everything, labels).tolist())))


def check_guard(data: Dataset, guard: str, metric: Metric) -> None:
    """Raise as `groups_of` does, by a few samples, and UsageError where the metric has no values to guard groups by.

    So that a word mistaken is told before a search, not after it.
    """
    if not metric.per_sample:
        raise UsageError(
            f"--guard {guard}", f"'{metric.name}' has no value for each sample", hint="guard another metric"
        )
    groups_of(data.subset(np.arange(min(len(data), READ))), guard)


def _classes(data: Dataset) -> Array:
    if not data.has_labels:
        raise DataError(data.name, "has no labels, by which classes are guarded", hint="add them, or leave out --guard")
    found = [batch.labels for batch in data.source.read(data.indices, READ) if batch.labels is not None]
    labels = np.concatenate(found)
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)  # one-hot
    if labels.size != len(data) or not np.array_equal(labels, np.rint(labels)):
        what = f"labels of type {labels.dtype} and shape {labels.shape} are no classes"
        raise DataError(data.name, what, hint="guard what an array of the data numbers instead")
    return labels.reshape(-1).astype(np.int64)
