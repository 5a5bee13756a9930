"""What comes before the first trial: data opened, the baseline scored, statistics collected; kept where they can be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from autoquant import __version__
from autoquant.calibration.statistics import VERSION, Statistics, collect, load_statistics, save_statistics
from autoquant.errors import DataError
from autoquant.evaluation.baseline import Baseline, load_baseline, measure_baseline, save_baseline
from autoquant.evaluation.batch import Array
from autoquant.evaluation.data import Dataset, open_data, split
from autoquant.evaluation.decoding import cores
from autoquant.evaluation.engine import Engine, Runner
from autoquant.evaluation.evaluator import Progress, no_progress
from autoquant.evaluation.metrics import Metric
from autoquant.evaluation.preprocessing import open_preprocess
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.tuning.apart import check_apart, without_shared
from autoquant.tuning.request import DataRequest

CALIBRATION_SHARE = 5
CALIBRATION_SAMPLES = 512
"""Without calibration data of its own, one sample in five, and at most 512, are split off for it."""
PART = 1 << 25
"""Bytes of activations that are held at once while calibrating: few enough to stay near the processor."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Evaluation and calibration data, and data to certify with where that was given by itself."""

    evaluation: Dataset
    calibration: Dataset
    certification: Dataset | None = None

    def check_apart(self) -> None:
        """Raise DataError where a sample is in two of them, by its content."""
        check_apart("calibration", self.calibration, "evaluation", self.evaluation)
        if self.certification is not None:
            check_apart("certification", self.certification, "evaluation", self.evaluation)
            check_apart("certification", self.certification, "calibration", self.calibration)


def open_samples(request: DataRequest, model: Model, *, seed: int, certify: Any = None) -> Samples:
    """Open the data of a request, and data to certify with where `certify` gives any.

    Without `calibration` of its own some is split off, drawn by the seed, and nothing of the same content is left in
    the evaluation data.
    """
    evaluation = open_one(request, model, request.data)
    certification = None if certify is None else open_one(request, model, certify)
    if request.calibration is not None:
        return Samples(evaluation, open_one(request, model, request.calibration), certification)
    count = min(CALIBRATION_SAMPLES, len(evaluation) // CALIBRATION_SHARE)
    parts = split(evaluation, max(count, 1), seed)
    return Samples(without_shared(parts.rest, parts.calibration), parts.calibration, certification)


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
    tensors: Collection[str] = (),
    balanced: Collection[str] = (),
    exact: bool = False,
    sketched: Collection[str] = (),
    kept: Path | None = None,
    on_progress: Progress = no_progress,
) -> Statistics:
    """Statistics of every layer's inputs from one FP32 pass, or those in the file `kept` if of this model and data.

    Statistics of `tensors` are collected beside. Inputs of the layers named in `balanced` are seen channel by channel
    as well. `exact` keeps every value of the inputs of all layers but those in `sketched`; otherwise memory does not
    grow with the data. What is exact is not kept in a file.

    Samples are drawn from all over the data, always the same ones: data is often sorted by class, and its first
    batches are not like the rest. Raises DataError when there are fewer batches than asked for, TrialError when exact
    values are too many.
    """
    wanted = sorted(set(batch_nums))
    available = batches_in(data, batch_size)
    if wanted[-1] > available:
        what = f"holds {available} batches of {batch_size}, but batch_num is {wanted[-1]}"
        raise DataError(data.name, what, hint="give more calibration data, a smaller batch size or a smaller batch_num")
    watched = sorted({*tensors, *(tensor for layer in layers.values() for tensor in layer.activations)})
    channels = sorted({(tensor, layers[name].data_axis) for name in balanced for tensor in layers[name].rescaled})
    values = {tensor for name in layers.keys() - set(sketched) if exact for tensor in layers[name].activations}
    versions = (VERSION, __version__, engine.version)
    source = (model.digest, *model.program.inputs, data.digest, batch_size)
    key = digest_of(*versions, *source, wanted, watched, channels, sorted(values))
    statistics = load_statistics(kept, key=key) if kept and not exact else None
    if statistics is None:
        runner = engine.open_graph(model.program, watched)
        try:
            edges = [number * batch_size for number in wanted]
            size = part_size(model, runner, data)
            parts = zip(wanted, _activations(runner, data, edges, size, on_progress), strict=True)
            statistics = collect(parts, key=key, exact=values, channels=channels, threads=cores())
        finally:
            runner.close()
        if kept and not exact:
            save_statistics(statistics, kept)
    return statistics


def _activations(
    runner: Runner, data: Dataset, edges: Sequence[int], size: int, on_progress: Progress
) -> Iterator[Iterator[Mapping[str, Array]]]:
    """What is new up to each number of samples in `edges`, `size` samples at a time."""
    order = calibration_order(data)
    done, total = 0, min(len(data), edges[-1])

    def run(samples: Dataset) -> Iterator[Mapping[str, Array]]:
        nonlocal done
        for batch in samples.batches(size):
            yield runner(batch.inputs)
            done += len(batch)
            on_progress(done, total)

    for start, stop in pairwise([0, *edges]):
        yield run(data.subset(order[start:stop]))


def calibration_order(data: Dataset) -> Array:
    """The order in which calibration samples are taken, drawn from all over the data, always the same."""
    return np.random.default_rng(0).permutation(len(data))


def part_size(model: Model, runner: Runner, data: Dataset) -> int:
    """Samples to run at once while calibrating; a multiple of the model's batch size, where that is fixed.

    One sample is run to find out how many have PART bytes of activations. There is one batch at least.
    """
    fixed = next((spec.shape[0] for spec in model.inputs if spec.shape and spec.shape[0]), 1)
    sample = next(data.subset(np.arange(1)).batches(1))
    made = sum(array.nbytes for array in runner(sample.inputs).values())
    return int(fixed * max(1, PART // max(made, 1)))


def score_baseline(
    engine: Engine,
    model: Model,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    kept: Path | None,
    on_progress: Progress,
) -> Baseline:
    """The FP32 model's outputs and score, measured, or those in the file `kept` if of this model, data and engine."""
    key = digest_of(
        __version__, engine.version, model.digest, *model.program.outputs, data.digest, metric.key, batch_size
    )
    baseline = load_baseline(kept, key=key) if kept else None
    if baseline is None:
        runner = engine.open_graph(model.program)
        try:
            baseline = measure_baseline(runner, data, metric, batch_size=batch_size, key=key, on_progress=on_progress)
        finally:
            runner.close()
        if kept:
            save_baseline(baseline, kept)
    return baseline


def batches_in(data: Dataset, batch_size: int) -> int:
    """How many batches the data makes, the last one perhaps shorter."""
    return math.ceil(len(data) / batch_size)


def digest_of(*facts: object) -> str:
    """A key made of facts: SHA-256, in hex."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()
