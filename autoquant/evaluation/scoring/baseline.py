"""The FP32 model on the evaluation data: run once, checked, scored, cached."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autoquant import __version__
from autoquant.array import Array
from autoquant.cache import CacheEntry, digest_of, read_cache, write_cache
from autoquant.errors import BaselineError, DataError, ModelError, TrialError
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import prefetched
from autoquant.evaluation.engines.engine import Engine, Runner, bounded_batch, bytes_of, run_batch
from autoquant.evaluation.metrics.advice import with_alternative
from autoquant.evaluation.metrics.classes import sample_classes, sample_labels, sample_margins
from autoquant.evaluation.metrics.metric import Metric, OnProgress, Score, score_of
from autoquant.evaluation.scoring.checks import check_deterministic, check_finite
from autoquant.evaluation.scoring.observed import ObservedOutputs
from autoquant.evaluation.scoring.outputs import OutputCache
from autoquant.evaluation.scoring.reference import Reference
from autoquant.evaluation.scoring.rows import Rows, size_text
from autoquant.evaluation.statistics.tolerance import drop_from
from autoquant.model.model import InputSpec, Model
from autoquant.quiet import no_progress

VERSION = 7
OF_SAMPLES = ("margins", "classes", "labels")
"""What a baseline knows of each sample, where the metric is of classes."""
SAVED = 1 << 26
"""Bytes up to which a baseline is written to its file; one of more is measured again when the run goes on."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """The FP32 model's score. `key` says of which model, data, metric, engine.

    `reference` gives what the metric keeps of the FP32 outputs, where it needs them. `margins` say of each sample how
    far the FP32 model is from another answer, (samples,), where the metric is of classes. `classes` are those that it
    gives to samples and `labels` the true ones, (samples,), where each sample has one. `sample_bytes` are those of
    all outputs of one sample. `warnings` are what a person should know of it.
    """

    key: str
    score: Score
    warnings: tuple[str, ...] = ()
    margins: Array | None = None
    classes: Array | None = None
    labels: Array | None = None
    sample_bytes: int = 0
    reference: Reference | None = None


def score_baseline(
    engine: Engine,
    model: Model,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    cache: Path | None,
    on_progress: OnProgress,
) -> Baseline:
    """The FP32 model's score, measured, or that in the file `cache` if of this model, data and engine."""
    key = digest_of(
        __version__, engine.version, model.digest, *model.program.outputs, data.digest, metric.key, batch_size
    )
    baseline = load_baseline(cache, metric, key=key) if cache else None
    if baseline is None:
        with closing(engine.open_graph(model.program)) as runner:
            baseline = measure_baseline(
                runner,
                data,
                metric,
                batch_size=batch_size,
                key=key,
                reopen=partial(engine.open_graph, model.program),
                folder=cache.parent if cache else None,
                on_progress=on_progress,
            )
        if cache:
            save_baseline(baseline, cache)
    return baseline


def measure_baseline(
    runner: Runner,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    key: str,
    reopen: Callable[[], Runner] | None = None,
    folder: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> Baseline:
    """Run the FP32 model over the data, once, and samples of its first batch twice more.

    `reopen` opens it again later, for outputs that a metric needs and the cache in `folder` has no room for; without it
    all are cached. Raises ModelError or DataError, which name the likely mistake, when two runs differ, outputs are not
    finite or do not depend on the sample, or labels count classes otherwise than the model does.
    """
    numbers = range(len(data)) if data.indices is None else data.indices
    cache = OutputCache(folder) if reopen else OutputCache(folder, most=sys.maxsize)
    observed, rows, margins, done = ObservedOutputs(metric), Rows(metric, len(data)), list[Array](), 0
    classes, labels = _Gathered(), _Gathered()
    on_progress(0, len(data))
    try:
        sample_bytes = _check_first(runner, next(iter(data.batches(batch_size))), data.inputs, numbers)
        batches = data.batches(bounded_batch(batch_size, sample_bytes, data.inputs))
        with prefetched(partial(run_batch, runner), batches, threaded=not data.at_hand) as pairs:
            for batch, outputs in pairs:
                check_finite(outputs, numbers[done:])
                scored = metric.scored(outputs)
                measured, reference = _measured(metric, outputs, batch.labels)
                rows.put(slice(done, done + len(batch)), measured)
                observed.add(scored, batch.labels)
                if metric.of_classes:
                    margins.append(sample_margins(metric, scored.values()))
                    classes.add(sample_classes(metric, scored))
                    labels.add(None if batch.labels is None else sample_labels(batch.labels))
                if metric.needs_reference:
                    cache.add(reference)
                sample_bytes = max(sample_bytes, bytes_of(outputs) // len(batch))
                done += len(batch)
                on_progress(done, len(data))
        warnings = (*observed.check(), *_too_many(cache, len(data)), *rows.warnings())
        score = score_of(metric, rows.array)
    except TrialError as error:
        raise ModelError(error.where, f"the FP32 model: {error.what}", hint=error.hint) from error
    return Baseline(
        key,
        score,
        warnings,
        np.concatenate(margins) if margins else None,
        classes.array,
        labels.array,
        sample_bytes,
        Reference(metric.reference, cache, reopen) if metric.needs_reference else None,
    )


class _Gathered:
    """Numbers of samples, batch by batch; None once there are none for a batch."""

    def __init__(self) -> None:
        self._parts: list[Array] | None = []

    def add(self, part: Array | None) -> None:
        if part is None:
            self._parts = None
        elif self._parts is not None:
            self._parts.append(part)

    @property
    def array(self) -> Array | None:
        return np.concatenate(self._parts) if self._parts else None


def _too_many(cache: OutputCache, samples: int) -> Iterator[str]:
    """What to know where the FP32 outputs that the metric needs are too many for the cache."""
    if cache.full:
        left = samples - len(cache)
        yield (
            f"the FP32 outputs of {left} of {samples} samples are computed again for every trial: those of the others "
            f"take {size_text(cache.size)} on disk"
        )


def _measured(metric: Metric, outputs: Outputs, labels: Array | None) -> tuple[Array, Outputs]:
    """The rows of a batch, and the outputs to keep.

    Raises DataError with a metric in its hint that takes these outputs, where this does not.
    """
    scored = metric.scored(outputs)
    try:
        reference = metric.reference(outputs) if metric.needs_reference else scored
        return metric.measure(scored, labels, reference), reference
    except DataError as error:
        raise with_alternative(error, metric, outputs, labels) from error


def require_score(baseline: Baseline, metric: Metric, least: float | None, name: str) -> None:
    """Raise BaselineError where the FP32 model, called `name`, is worse than was asked of it at least."""
    score = baseline.score.value
    if least is not None and drop_from(least, score, higher_is_better=metric.higher_is_better) > 0.0:
        what = f"scores {metric.name} {score:.6g}, worse than --min-baseline {least:g}: nothing more is done"
        raise BaselineError(name, what, hint="train it better, or check data and preprocessing")


def save_baseline(baseline: Baseline, path: Path) -> None:
    """Write an .npz, whole or not at all, unless it would have more than SAVED bytes."""
    arrays: dict[str, Array] = {"rows": baseline.score.rows}
    for name in OF_SAMPLES:
        if (found := getattr(baseline, name)) is not None:
            arrays[name] = found
    cache = baseline.reference.cache if baseline.reference else None
    size = bytes_of(arrays) + (cache.size if cache else 0)
    if size > SAVED or (cache is not None and cache.full):
        return
    batches = list(cache.batches()) if cache else []
    names = list(batches[0]) if batches else []
    for number, outputs in enumerate(batches):
        arrays.update({f"output{index}_{number}": outputs[name] for index, name in enumerate(names)})
    facts = {
        "names": names,
        "batches": len(batches),
        "value": baseline.score.value,
        "sample_bytes": baseline.sample_bytes,
        "warnings": list(baseline.warnings),
    }
    write_cache(path, CacheEntry(facts, arrays), key=baseline.key, version=VERSION)


def load_baseline(path: Path, metric: Metric, *, key: str) -> Baseline | None:
    """What `save_baseline` wrote, or None when that is not there, damaged, or of another key or version."""
    entry = read_cache(path, key=key, version=VERSION)
    if entry is None:
        return None
    facts, arrays, reference = entry.header, entry.arrays, None
    if metric.needs_reference:
        reference = Reference(metric.reference, OutputCache(path.parent, most=sys.maxsize))
        for number in range(facts["batches"]):
            outputs = {name: arrays[f"output{index}_{number}"] for index, name in enumerate(facts["names"])}
            reference.cache.add(outputs)
    score = Score(facts["value"], arrays["rows"])
    known = {name: arrays.get(name) for name in OF_SAMPLES}
    warnings, size = tuple(facts["warnings"]), facts["sample_bytes"]
    return Baseline(key, score, warnings, **known, sample_bytes=size, reference=reference)


def _check_first(runner: Runner, batch: Batch, inputs: Sequence[InputSpec], numbers: Array | range) -> int:
    """Run the first batch twice, or as many of its samples as are scored at a time; gives the bytes of a sample."""
    sample_bytes = bytes_of(run_batch(runner, batch.part(slice(1))))
    part = batch.part(slice(bounded_batch(len(batch), sample_bytes, inputs)))
    once, again = run_batch(runner, part), run_batch(runner, part)
    check_finite(once, numbers)
    check_deterministic(once, again)
    return sample_bytes
