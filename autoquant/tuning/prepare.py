"""What comes before the first trial: data opened, the baseline scored, statistics collected; kept where they can be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.calibration.statistics import VERSION, Statistics, collect, load_statistics, save_statistics
from autoquant.evaluation.baseline import Baseline, load_baseline, measure_baseline, save_baseline
from autoquant.evaluation.data import Dataset, open_data, split
from autoquant.evaluation.engine import Array, Engine
from autoquant.evaluation.evaluator import Progress
from autoquant.evaluation.metrics import Metric
from autoquant.evaluation.preprocessing import open_preprocess
from autoquant.model.layers import Layer
from autoquant.model.model import Model
from autoquant.tuning.request import DataRequest
from autoquant.tuning.workbench import no_progress

CALIBRATION_SHARE = 5
"""Without calibration data of its own, at most one sample in so many is split off for it."""
PART = 16
"""Samples whose activations are held at once while calibrating: bounds memory whatever the batch size."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Evaluation and calibration data, disjoint where they come from one source."""

    evaluation: Dataset
    calibration: Dataset


def open_samples(request: DataRequest, model: Model, *, batches: int, seed: int) -> Samples:
    """Open the data of a request; without `calibration` of its own, up to `batches` batches are split off."""
    evaluation = open_one(request, model, request.data)
    if request.calibration is not None:
        return Samples(evaluation, open_one(request, model, request.calibration))
    count = min(batches * request.batch_size, len(evaluation) // CALIBRATION_SHARE)
    parts = split(evaluation, max(count, 1), seed)
    return Samples(parts.rest, parts.calibration)


def open_one(request: DataRequest, model: Model, spec: Any) -> Dataset:
    """Open evaluation or calibration data as the request says."""
    return open_data(
        spec,
        model.inputs,
        preprocess=open_preprocess(request.preprocess, scale=request.scale, mean=request.mean, std=request.std),
        label_offset=request.label_offset,
        image_size=request.image_size,
    )


def calibrate(
    engine: Engine,
    model: Model,
    layers: Mapping[str, Layer],
    data: Dataset,
    batch_nums: Sequence[int],
    *,
    batch_size: int,
    kept: Path | None = None,
    on_progress: Progress = no_progress,
) -> Statistics:
    """Statistics of every layer's input from one FP32 pass, or those in the file `kept` if of this model and data."""
    key = digest_of(VERSION, model.digest, *model.graph.inputs, data.digest, batch_size, *batch_nums, *layers)
    statistics = load_statistics(kept, key=key) if kept else None
    if statistics is not None:
        return statistics
    runner = engine.open_graph(model.graph, sorted({layer.activation for layer in layers.values()}))

    done, total = 0, min(len(data), max(batch_nums) * batch_size)

    def activations(parts: list[Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
        nonlocal done
        for part in parts:
            yield runner(part)
            done += len(next(iter(part.values())))
            on_progress(done, total)

    try:
        statistics = collect(map(activations, exact_batches(data, batch_size)), batch_nums, key=key)
    finally:
        runner.close()
    if kept:
        save_statistics(statistics, kept)
    return statistics


def exact_batches(data: Dataset, size: int) -> Iterator[list[Mapping[str, Array]]]:
    """The inputs of `size` samples at a time, the last time perhaps fewer, in parts of one shape and bounded memory.

    Unlike `Dataset.batches`, a batch does not end where images of another size begin.
    """
    parts: list[Mapping[str, Array]] = []
    room = size
    for batch in data.batches(min(size, PART)):
        start = 0
        while start < len(batch):
            stop = min(start + room, len(batch))
            parts.append({name: array[start:stop] for name, array in batch.inputs.items()})
            room -= stop - start
            start = stop
            if room == 0:
                yield parts
                parts, room = [], size
    if parts:
        yield parts


def score_baseline(
    engine: Engine,
    model: Model,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    kept: Path,
    on_progress: Progress,
    on_warning: Callable[[str], None],
) -> Baseline:
    """The FP32 model's outputs and score, measured, or those in the file `kept` if of this model, data and engine."""
    key = digest_of(model.digest, *model.graph.outputs, data.digest, metric.name, engine.name, batch_size)
    baseline = load_baseline(kept, key=key)
    if baseline is None:
        runner = engine.open_graph(model.graph)
        try:
            baseline = measure_baseline(
                runner, data, metric, batch_size=batch_size, key=key, on_progress=on_progress, on_warning=on_warning
            )
        finally:
            runner.close()
        save_baseline(baseline, kept)
    return baseline


def batches_in(data: Dataset, batch_size: int) -> int:
    """How many batches the data makes, the last one perhaps shorter."""
    return math.ceil(len(data) / batch_size)


def digest_of(*facts: object) -> str:
    """A key made of facts: SHA-256, in hex."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()
