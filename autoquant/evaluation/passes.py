"""FP32 passes over calibration data: the statistics that ranges are chosen from, and the moments that repairs need."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from autoquant import __version__
from autoquant.array import Array
from autoquant.cache import digest_of
from autoquant.calibration.channels import Moments, collect_moments
from autoquant.calibration.statistics import VERSION, Statistics, collect, load_statistics, save_statistics
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.engine import Engine, Runner
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.quiet import no_progress

PART = 1 << 25
"""Bytes of activations that are held at once while calibrating: few enough to stay near the processor."""


@dataclass(frozen=True)
class CalibrationRunner:
    """Runs models over calibration data, the same samples in the same order for all of them.

    A plan's `batch_num` counts batches of `batch_size` samples. They are drawn from all over the data: data is often
    sorted by class, and its first batches are not like the rest.
    """

    engine: Engine
    data: Dataset
    batch_size: int
    on_progress: OnProgress = no_progress

    def statistics(
        self,
        model: Model,
        layers: Mapping[str, Layer],
        batch_nums: Sequence[int],
        *,
        tensors: Collection[str] = (),
        balanced: Collection[str] = (),
        exact: bool = False,
        sketched: Collection[str] = (),
        cache: Path | None = None,
    ) -> Statistics:
        """Statistics of every layer's inputs from one pass, or those in the file `cache` if of this model and data.

        Statistics of `tensors` are collected beside. Inputs of the layers named in `balanced` are seen channel by
        channel as well. `exact` keeps every value of the inputs of all layers but those in `sketched`; otherwise memory
        does not grow with the data. What is exact is not kept in a file.

        Raises DataError when there are fewer batches than asked for, TrialError when exact values are too many.
        """
        data, size, wanted = self.data, self.batch_size, sorted(set(batch_nums))
        if wanted[-1] > batches_in(data, size):
            what = f"holds {batches_in(data, size)} batches of {size}, but batch_num is {wanted[-1]}"
            hint = "give more calibration data, a smaller batch size or a smaller batch_num"
            raise DataError(data.name, what, hint=hint)
        watched = sorted({*tensors, *(tensor for layer in layers.values() for tensor in layer.activations)})
        channels = sorted({(tensor, layers[name].data_axis) for name in balanced for tensor in layers[name].rescaled})
        values = {tensor for name in layers.keys() - set(sketched) if exact for tensor in layers[name].activations}
        versions = (VERSION, __version__, self.engine.version)
        source = (model.digest, *model.program.inputs, data.digest, size)
        key = digest_of(*versions, *source, wanted, watched, channels, sorted(values))
        statistics = load_statistics(cache, key=key) if cache and not exact else None
        if statistics is not None:
            return statistics
        self.on_progress(0, 0)
        with closing(self.engine.open_graph(model.program, watched)) as runner:
            parts = zip(wanted, self._parts(model, runner, [number * size for number in wanted]), strict=True)
            statistics = collect(parts, key=key, exact=values, channels=channels, threads=cores())
        if cache and not exact:
            save_statistics(statistics, cache)
        return statistics

    def moments(self, model: Model, axes: Mapping[str, int], batch_num: int) -> Mapping[str, Moments]:
        """Moments of tensors of a float model, each with the axis that numbers its channels, over `batch_num` batches.

        Raises TrialError where the model does not run, DataError where the data cannot be read.
        """
        self.on_progress(0, 0)
        with closing(self.engine.open_graph(model.program, sorted(axes))) as runner:
            return collect_moments(next(self._parts(model, runner, [batch_num * self.batch_size])), axes)

    def samples(self, count: int) -> Mapping[str, Array]:
        """Inputs by name of the first samples of the calibration, `count` of them or all there are, as one batch."""
        return next(self.data.subset(calibration_order(self.data)[:count]).batches(count)).inputs

    def _parts(self, model: Model, runner: Runner, edges: Sequence[int]) -> Iterator[Iterator[Mapping[str, Array]]]:
        """The tensors of the samples that are new up to each number of samples in `edges`, some samples at a time."""
        order, size = calibration_order(self.data), part_size(model, runner, self.data)
        done, total = 0, min(len(self.data), edges[-1])
        self.on_progress(done, total)

        def run(samples: Dataset) -> Iterator[Mapping[str, Array]]:
            nonlocal done
            for batch in samples.batches(size):
                yield runner(batch.inputs)
                done += len(batch)
                self.on_progress(done, total)

        for start, stop in pairwise([0, *edges]):
            yield run(self.data.subset(order[start:stop]))


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


def batches_in(data: Dataset, batch_size: int) -> int:
    """How many batches the data makes, the last one perhaps shorter."""
    return math.ceil(len(data) / batch_size)
