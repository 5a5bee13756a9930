"""The FP32 model on the evaluation data: run once, checked, scored, kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.batch import Array, Outputs
from autoquant.evaluation.checks import (
    check_baseline_above_chance,
    check_deterministic,
    check_finite,
    check_label_offset,
    check_not_constant,
)
from autoquant.evaluation.data import Dataset
from autoquant.evaluation.engine import Runner
from autoquant.evaluation.evaluator import Progress, Score, run_batch
from autoquant.evaluation.metrics import Metric
from autoquant.kept import Kept, keep, read_kept

VERSION = 1


@dataclass(frozen=True)
class Baseline:
    """Outputs of the FP32 model batch by batch, and their score. `key` says of which model, data, metric, engine."""

    key: str
    outputs: tuple[Outputs, ...]
    score: Score


def measure_baseline(
    runner: Runner,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    key: str,
    on_progress: Progress = lambda done, total: None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> Baseline:
    """Run the FP32 model over the data, once, and its first batch twice.

    Raises ModelError or DataError, which name the likely mistake, when two runs differ, outputs are not finite or do
    not depend on the sample, or labels count classes otherwise than the model does.
    """
    first = next(iter(data.batches(batch_size)))
    try:
        once, again = run_batch(runner, first), run_batch(runner, first)
        check_finite(once)
        check_deterministic(once, again)
        seen: list[tuple[Array | None, Outputs]] = []
        done = 0
        for batch in data.batches(batch_size):
            seen.append((batch.labels, run_batch(runner, batch)))
            done += len(batch)
            on_progress(done, len(data))
        _check(seen, on_warning)
        rows = np.concatenate([metric.measure(outputs, labels, outputs) for labels, outputs in seen])
        score = Score(float(metric.combine(rows)), rows, done)
    except TrialError as error:
        raise ModelError(error.where, f"the FP32 model: {error.what}", hint=error.hint) from error
    return Baseline(key, tuple(outputs for _, outputs in seen), score)


def save_baseline(baseline: Baseline, path: Path) -> None:
    """Write an .npz, whole or not at all."""
    arrays: dict[str, Array] = {"rows": baseline.score.rows}
    names = list(baseline.outputs[0])
    for number, outputs in enumerate(baseline.outputs):
        arrays.update({f"output{index}_{number}": outputs[name] for index, name in enumerate(names)})
    facts = {
        "names": names,
        "batches": len(baseline.outputs),
        "value": baseline.score.value,
        "samples": baseline.score.samples,
    }
    keep(path, Kept(facts, arrays), key=baseline.key, version=VERSION)


def load_baseline(path: Path, *, key: str) -> Baseline | None:
    """What `save_baseline` wrote, or None when that is not there, damaged, or of another key or version."""
    kept = read_kept(path, key=key, version=VERSION)
    if kept is None:
        return None
    facts = kept.header
    outputs = tuple(
        {name: kept.arrays[f"output{index}_{number}"] for index, name in enumerate(facts["names"])}
        for number in range(facts["batches"])
    )
    return Baseline(key, outputs, Score(facts["value"], kept.arrays["rows"], facts["samples"]))


def _check(seen: list[tuple[Array | None, Outputs]], on_warning: Callable[[str], None]) -> None:
    """Look at all outputs together; images of different sizes cannot be, and are only checked to be finite."""
    shapes = {tuple((name, array.shape[1:]) for name, array in given.items()) for _, given in seen}
    if len(shapes) > 1:
        for _, given in seen:
            check_finite(given)
        return
    outputs = {name: np.concatenate([given[name] for _, given in seen]) for name in seen[0][1]}
    check_finite(outputs)
    given_labels = [labels for labels, _ in seen if labels is not None]
    labels = np.concatenate(given_labels) if given_labels else None
    check_not_constant(outputs, labels)
    if labels is not None:
        check_label_offset(outputs, labels)
        warning = check_baseline_above_chance(outputs, labels)
        if warning:
            on_warning(warning)
