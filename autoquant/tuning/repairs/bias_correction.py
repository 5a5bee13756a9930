"""Bias corrections of a plan, from its quantized model and calibration data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from autoquant import __version__
from autoquant.array import Array
from autoquant.cache import CacheEntry, cached, digest_of
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Record
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.formats.config_json import config_text
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model, Program
from autoquant.quantization.equalize import mean_shift
from autoquant.targets.base import NO_CORRECTIONS, Compiler, Corrections, Target
from autoquant.targets.table import TARGETS

SAMPLES = 128
"""Calibration samples over which the mean error of a layer is measured."""
LARGEST = 1 << 27
"""Bytes that the largest result of a layer may have while it is measured."""
VERSION = 1
"""Of the arithmetic, and of what is kept."""


class FloatInt8Pair(Protocol):
    """A saved INT8 model, and the float model that it is the quantized form of.

    It is of some layers, all with a weight and a bias, and INT8 in the file.
    """

    def weight_errors(self) -> Iterator[tuple[Layer, Array]]:
        """Each layer with the error of its weight, W_q - W, float64, in the layout of the float model."""
        ...

    def input_axis(self, layer: Layer) -> int:
        """The axis of a layer's weight that numbers input channels."""
        ...

    def open(self) -> Runner:
        """A runner of both models, which gives by layer the mean over a batch of its INT8 result minus the float one.

        That is of each output channel, before the activation. Behind each layer its mean error is taken off before
        anything reads the result, so everything before a layer is quantized and corrected already, for this batch. A
        model of a fixed batch size gives one row of channels after the other.
        """
        ...


def open_pair(path: Path, reference: Program, layers: Mapping[str, Layer]) -> FloatInt8Pair:
    """Open a file that a target saved, beside its float model, for some layers. Raises ModelError where it is none."""
    if isinstance(reference, LiteGraph):
        from autoquant.tuning.repairs.lite_pair import LitePair

        return LitePair(flatbuffer.read(path.read_bytes()), reference, layers)
    from autoquant.model.graph import Graph
    from autoquant.targets.saved_graph import read_saved_graph
    from autoquant.tuning.repairs.graph_pair import GraphPair

    assert isinstance(reference, Graph)
    return GraphPair(read_saved_graph(path), reference, layers)


@dataclass(frozen=True)
class Corrector:
    """Computes bias corrections for plans; the means of inputs are taken in one pass for all of them.

    `cache` is a folder for what was computed, for when a run goes on: each file has a key of its own.
    """

    target: Target
    layers: Mapping[str, Layer]
    calibration: CalibrationRunner
    cache: Path | None = None
    _means: dict[str, Mapping[str, Array]] = field(default_factory=dict)

    def corrections(
        self, plan: Plan, model: Model, compiler: Compiler, before: Corrections = NO_CORRECTIONS
    ) -> Corrections:
        """Corrections of the biases of INT8 layers beside those `before`, of weights, which are in the file by then.

        `compiler` makes files of the model, which the target lowered.

        A layer without a bias is left as it is. Raises as `Compiler.compile`, DataError where the data cannot be read,
        and TrialError where a model does not run.
        """
        layers = {name: self.layers[name] for name in plan.int8 if correctable(self.layers[name])}
        if plan.bias_correction == "none" or not layers:
            return before
        runtime = TARGETS[self.target.name].runtime
        key = self._key(model, plan, open_engine(runtime).version, config_text(plan))
        return replace(before, biases=self._once(key, lambda: self._computed(plan, model, compiler, layers, before)))

    def _computed(
        self, plan: Plan, model: Model, compiler: Compiler, layers: Mapping[str, Layer], before: Corrections
    ) -> Mapping[str, Array]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.target.file_name("uncorrected")
            record = compiler.compile(plan, path, corrections=before).record
            pair = open_pair(path, compiler.reference(plan), layers)
            if plan.bias_correction == "analytic":
                return self._analytic(plan, model, record, pair)
            return self._empirical(layers, pair)

    def _analytic(self, plan: Plan, model: Model, record: Record, pair: FloatInt8Pair) -> Mapping[str, Array]:
        """Minus what the rounding of its weight adds to the mean of a layer's result."""
        means, found = self._all_means(plan, model), {}
        for layer, error in pair.weight_errors():
            seen = means[layer.name] / np.array(record[layer.name].balance or 1.0)
            found[layer.name] = -_shift(layer, error, seen, input_axis=pair.input_axis(layer))
        return found

    def _all_means(self, plan: Plan, model: Model) -> Mapping[str, Array]:
        """The mean of each channel that a layer of the model reads, by layer."""

        def computed() -> Mapping[str, Array]:
            layers = [layer for layer in self.layers.values() if correctable(layer)]
            axes = {layer.activations[0]: layer.data_axis for layer in layers}
            moments = self.calibration.moments(model, axes, plan.batch_num)
            return {one.name: moments[one.activations[0]].mean for one in layers if one.activations[0] in moments}

        key = self._key(model, plan, plan.batch_num)
        if key not in self._means:
            self._means[key] = self._once(key, computed)
        return self._means[key]

    def _empirical(self, layers: Mapping[str, Layer], pair: FloatInt8Pair) -> Mapping[str, Array]:
        """Minus the mean error of a layer behind layers that are quantized and corrected already.

        That holds for each batch by itself; of several the mean is taken.
        """
        sums = {name: np.zeros(layer.channels) for name, layer in layers.items()}
        count = 0
        with closing(pair.open()) as runner:
            for inputs in self._batches(layers):
                size = len(next(iter(inputs.values())))
                _add(sums, runner(inputs), size)
                count += size
                self.calibration.on_progress(count, SAMPLES)
        return {name: -total / count for name, total in sums.items()}

    def _batches(self, layers: Mapping[str, Layer]) -> Iterator[Mapping[str, Array]]:
        shapes = (layer.output_shape or () for layer in layers.values())
        largest = max(prod(size or 1 for size in shape[1:]) for shape in shapes)
        size = max(1, LARGEST // (4 * largest))
        samples = self.calibration.samples(SAMPLES)
        for start in range(0, len(next(iter(samples.values()))), size):
            yield {name: values[start : start + size] for name, values in samples.items()}

    def _key(self, model: Model, plan: Plan, *facts: object) -> str:
        calibration = self.calibration
        source = (model.digest, plan.equalize, calibration.data.digest, calibration.batch_size)
        versions = (VERSION, __version__, calibration.engine.version)
        return digest_of(*versions, self.target, *source, *sorted(self.layers), *facts)

    def _once(self, key: str, compute: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """A vector for each layer, from the cache or computed."""

        def entry() -> CacheEntry:
            found = compute()
            return CacheEntry({"layers": list(found)}, {str(n): values for n, values in enumerate(found.values())})

        path = self.cache / f"{key[:16]}.npz" if self.cache else None
        known = cached(path, entry, key=key, version=VERSION)
        return {name: known.arrays[str(number)] for number, name in enumerate(known.header["layers"])}


def correctable(layer: Layer) -> bool:
    """Whether a layer has a bias that can make up for the error of its weight."""
    return layer.weight is not None and layer.bias is not None


def _shift(layer: Layer, error: Array, means: Array, *, input_axis: int) -> Array:
    """E[(W_q - W) x] of each output channel, `error` being W_q - W, from the means of the input channels.

    To a transposed convolution with strides each value of its input comes once, but there are more results than
    values: they share it. Where their numbers are not known, nothing is said to shift.
    """
    shift = mean_shift(error, means, input_axis=input_axis, channel_axes=layer.channel_axes)
    if layer.op != "Conv2DBackpropInput":
        return shift
    results = prod(size or 0 for size in (layer.output_shape or ())[1:])
    places = (layer.macs or 0) * layer.channels / (prod(layer.weight_shape) * results) if results else 0.0
    return shift * places  # of the input, for each place of the result


def _add(sums: Mapping[str, Array], means: Mapping[str, Array], size: int) -> None:
    """Add the means of one batch, each of one or more rows of channels, as often as it has samples."""
    for name, total in sums.items():
        total += size * means[name].reshape(-1, len(total)).mean(axis=0, dtype=np.float64)
