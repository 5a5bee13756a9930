"""The FP32 model on the evaluation data: run once, checked, scored, cached."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autoquant import __version__
from autoquant.array import Array
from autoquant.cache import CacheEntry, digest_of, read_cache, write_cache
from autoquant.errors import DataError, ModelError, TrialError
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import prefetched
from autoquant.evaluation.engines.engine import Engine, Runner, run_batch
from autoquant.evaluation.metrics.advice import with_alternative
from autoquant.evaluation.metrics.classes import sample_margins
from autoquant.evaluation.metrics.metric import Metric, OnProgress, Score, score_of, stack_rows
from autoquant.evaluation.scoring.checks import (
    check_baseline_above_chance,
    check_deterministic,
    check_finite,
    check_label_offset,
    check_not_constant,
    check_not_one_class,
    check_positions,
    one_position,
)
from autoquant.model.model import Model
from autoquant.quiet import no_progress

VERSION = 6
SMALL = 64 * 1024
"""Bytes of outputs a sample that are kept until all samples were run, to check them together."""


@dataclass(frozen=True)
class Baseline:
    """The FP32 model's score and outputs. `key` says of which model, data, metric, engine.

    `outputs` are those that are scored: of each batch what the metric keeps for reference, or else of the first batch
    only. `margins` say of each sample how far the FP32 model is from another answer, (samples,), where the metric is of
    classes. `warnings` are what a person should know of it.
    """

    key: str
    outputs: tuple[Outputs, ...]
    score: Score
    warnings: tuple[str, ...] = ()
    margins: Array | None = None

    def reference(self, samples: Array) -> Outputs:
        """The FP32 outputs of some samples, by position, where all were kept, wherever batches begin and end."""
        ends = np.cumsum([len(next(iter(outputs.values()))) for outputs in self.outputs])
        batches = np.searchsorted(ends, samples, side="right")
        places = samples - np.concatenate([[0], ends])[batches]
        return {
            name: np.stack([self.outputs[batch][name][place] for batch, place in zip(batches, places, strict=True)])
            for name in self.outputs[0]
        }


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
    """The FP32 model's outputs and score, measured, or those in the file `cache` if of this model, data and engine."""
    key = digest_of(
        __version__, engine.version, model.digest, *model.program.outputs, data.digest, metric.key, batch_size
    )
    baseline = load_baseline(cache, key=key) if cache else None
    if baseline is None:
        with closing(engine.open_graph(model.program)) as runner:
            baseline = measure_baseline(runner, data, metric, batch_size=batch_size, key=key, on_progress=on_progress)
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
    on_progress: OnProgress = no_progress,
) -> Baseline:
    """Run the FP32 model over the data, once, and its first batch twice.

    Raises ModelError or DataError, which name the likely mistake, when two runs differ, outputs are not finite or do
    not depend on the sample, or labels count classes otherwise than the model does.
    """
    numbers = range(len(data)) if data.indices is None else data.indices
    try:
        _check_first(runner, next(iter(data.batches(batch_size))), numbers)
        kept: list[Outputs] = []
        outputs_to_check: list[Outputs] = []
        labels_to_check: list[Array] = []
        rows: list[Array] = []
        margins: list[Array] = []
        done = 0
        with prefetched(partial(run_batch, runner), data.batches(batch_size), threaded=not data.at_hand) as pairs:
            for batch, outputs in pairs:
                check_finite(outputs, numbers[done:])
                scored = metric.scored(outputs)
                measured, reference = _measured(metric, outputs, batch.labels)
                rows.append(measured)
                checked = _to_check(scored, metric)
                # Copies: a view would hold the whole batch.
                outputs_to_check.append({name: array[checked].copy() for name, array in scored.items()})
                if batch.labels is not None:
                    labels_to_check.append(batch.labels[checked])
                if metric.of_classes:
                    margins.append(sample_margins(metric, scored.values()))
                if metric.needs_reference or not kept:
                    kept.append(reference)
                done += len(batch)
                on_progress(done, len(data))
        warnings = _check_all(outputs_to_check, labels_to_check, metric)
        score = score_of(metric, stack_rows(metric, rows))
    except TrialError as error:
        raise ModelError(error.where, f"the FP32 model: {error.what}", hint=error.hint) from error
    return Baseline(key, tuple(kept), score, warnings, np.concatenate(margins) if margins else None)


def _measured(metric: Metric, outputs: Outputs, labels: Array | None) -> tuple[Array, Outputs]:
    """The rows of a batch, and the outputs to keep.

    Raises DataError with a metric in its hint that takes these outputs, where this does not.
    """
    scored = metric.scored(outputs)
    try:
        reference = metric.kept(scored) if metric.needs_reference else scored
        return metric.measure(scored, labels, reference), reference
    except DataError as error:
        raise with_alternative(error, metric, outputs, labels) from error


def save_baseline(baseline: Baseline, path: Path) -> None:
    """Write an .npz, whole or not at all."""
    arrays: dict[str, Array] = {"rows": baseline.score.rows}
    if baseline.margins is not None:
        arrays["margins"] = baseline.margins
    names = list(baseline.outputs[0])
    for number, outputs in enumerate(baseline.outputs):
        arrays.update({f"output{index}_{number}": outputs[name] for index, name in enumerate(names)})
    facts = {
        "names": names,
        "batches": len(baseline.outputs),
        "value": baseline.score.value,
        "warnings": list(baseline.warnings),
    }
    write_cache(path, CacheEntry(facts, arrays), key=baseline.key, version=VERSION)


def load_baseline(path: Path, *, key: str) -> Baseline | None:
    """What `save_baseline` wrote, or None when that is not there, damaged, or of another key or version."""
    entry = read_cache(path, key=key, version=VERSION)
    if entry is None:
        return None
    facts = entry.header
    outputs = tuple(
        {name: entry.arrays[f"output{index}_{number}"] for index, name in enumerate(facts["names"])}
        for number in range(facts["batches"])
    )
    score = Score(facts["value"], entry.arrays["rows"])
    return Baseline(key, outputs, score, tuple(facts["warnings"]), entry.arrays.get("margins"))


def _to_check(outputs: Outputs, metric: Metric) -> slice:
    """The samples of a batch to keep: all where a metric of classes needs them and they are small, else two."""
    size, count = sum(array.nbytes for array in outputs.values()), len(next(iter(outputs.values())))
    return slice(count if metric.of_classes and size <= SMALL * count else 2)


def _check_first(runner: Runner, batch: Batch, numbers: Array | range) -> None:
    """Run a batch twice."""
    once, again = run_batch(runner, batch), run_batch(runner, batch)
    check_finite(once, numbers)
    check_deterministic(once, again)


def _check_all(outputs: Sequence[Outputs], labels: Sequence[Array], metric: Metric) -> tuple[str, ...]:
    """Check all batches together, unless their outputs' shapes differ, as of images of several sizes.

    What a person should know is returned.
    """
    if len({tuple(array.shape[1:] for array in part.values()) for part in outputs}) > 1:
        return ()
    whole: Outputs = {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
    check_not_constant(whole)
    if not metric.of_classes or len(whole) > 1:  # of several outputs not all need be classes
        return ()
    scores = one_position(whole, metric)
    if scores is None:
        return _warnings(check_positions(whole, metric))
    whole, truth = scores, np.concatenate(labels) if labels else None
    check_not_one_class(whole, truth)
    if truth is None or not metric.needs_labels:
        return ()
    check_label_offset(whole, truth)
    return _warnings(check_baseline_above_chance(whole, truth, metric))


def _warnings(warning: str | None) -> tuple[str, ...]:
    return (warning,) if warning else ()
