"""Integers of the weights of a plan that make up for their rounding errors on what the layers read.

What they read is seen once, in an FP32 pass over calibration data, for all plans. Passes for each plan, through the
layers before in INT8, made no difference to the divergence from FP32 that could be measured, and neither did it where
biases are corrected to aim from such inputs at the float results (GPTAQ: Li et al. 2025, arXiv:2504.02692); they take
most of a trial. Where biases are corrected, these take up the mean of the error, so that its variance alone is left to
be the least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from autoquant import __version__
from autoquant.array import Array
from autoquant.cache import CacheEntry, digest_of, read_cache, write_cache
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import LayerRecord, float_weight
from autoquant.errors import IN_FLOAT, TrialError
from autoquant.evaluation.passes import CalibrationRunner, calibration_order, part_size
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model, known_constant
from autoquant.quantization.affine import by_channel, from_channels
from autoquant.quantization.rounding import compensated, compensated_by_samples
from autoquant.quiet import no_progress
from autoquant.targets.base import Compiler, Target
from autoquant.tuning.repairs.weight_inputs import InputMoments, WeightInputs, weight_inputs

SAMPLES = 512
"""Calibration samples in which it is seen what layers read."""
OF_INPUT, FEWEST, MOST = 32, 2048, 16384
"""Places of a layer's result, of all samples together, whose inputs are seen: so many for each input of a weight, and
within these bounds."""
TOGETHER = 1 << 30
"""Bytes of moments that are held, and kept for other plans: with more it takes several passes."""
VERSION = 2
"""Of the arithmetic, and of what is kept."""


@dataclass(frozen=True)
class _Wanted:
    """A layer whose weight is to be rounded, its rows in real units, float32, by scales and factors of its record.

    `narrow` says that the smallest integer is left out, as LiteRT wants it. `key` is of all that integers depend on.
    """

    layer: Layer
    inputs: WeightInputs
    record: LayerRecord
    rows: Array
    narrow: bool
    key: str


@dataclass(frozen=True)
class Rounder:
    """Computes the integers of weights for plans; the moments of what layers read are those of all of them.

    `cache` is a folder for integers, for when a run goes on: each layer has a file for each setting. `warn` is told of
    layers that stay rounded to nearest, once of each.
    """

    target: Target
    layers: Mapping[str, Layer]
    calibration: CalibrationRunner
    cache: Path | None = None
    warn: Callable[[str], None] = no_progress
    _seen: dict[tuple[str, str], InputMoments] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def weights(self, plan: Plan, model: Model, compiler: Compiler) -> Mapping[str, Array]:
        """The integers of INT8 layers, int8 in the shape of their weights; a layer without any stays as it is.

        `compiler` makes files of the model, which the target lowered. Raises as `Compiler.record`, DataError where the
        data cannot be read, and TrialError where the model does not run, or a layer reads what is not finite.
        """
        if plan.weight_rounding == "nearest":
            return {}
        found: dict[str, Array] = {}
        missing: list[_Wanted] = []
        for wanted in self._wanted(plan, model, compiler):
            path = self._path(wanted.key)
            known = None if path is None else read_cache(path, key=wanted.key, version=VERSION)
            if known is None:
                missing.append(wanted)
            else:
                found[wanted.layer.name] = known.arrays["weight"]
        for number, (wanted, moments) in enumerate(self._moments(model, missing)):
            integers = self._integers(wanted, moments, centered=_is_centered(plan, wanted.layer))
            path = self._path(wanted.key)
            if path is not None:
                path.parent.mkdir(exist_ok=True)
                write_cache(path, CacheEntry({}, {"weight": integers}), key=wanted.key, version=VERSION)
            found[wanted.layer.name] = integers
            self.calibration.on_progress(number + 1, len(missing))
        return found

    def _wanted(self, plan: Plan, model: Model, compiler: Compiler) -> Iterator[_Wanted]:
        """The layers of a plan whose weights are rounded; warns of others that have a weight."""
        record, reference = compiler.record(plan), compiler.reference(plan)
        source = (model.digest, self.calibration.data.digest, self.calibration.engine.version, self.target)
        left: dict[str, str] = {}
        for name in plan.int8:
            layer = self.layers[name]
            if layer.weight is None:
                continue
            inputs, own = weight_inputs(model.program, layer), record[name]
            if isinstance(inputs, str):
                left[name] = inputs
                continue
            lite = isinstance(reference, LiteGraph)  # whose constants are balanced already
            weight = known_constant(reference, layer.weight) if lite else float_weight(reference, layer, own.balance)
            rows = by_channel(weight, layer.channel_axes)
            facts = (own.weight_bits, own.scale_w, own.balance, sha256(rows.tobytes()).hexdigest())
            key = digest_of(VERSION, __version__, *source, name, _is_centered(plan, layer), *facts)
            yield _Wanted(layer, inputs, own, rows, lite, key)
        self._tell(left)

    def _tell(self, left: Mapping[str, str]) -> None:
        new = {name: reason for name, reason in left.items() if name not in self._told}
        self._told.update(new)
        if new:
            reasons = "; ".join(f"'{name}': {reason}" for name, reason in new.items())
            self.warn(f"rounded to nearest, not by gptq: {reasons}")

    def _moments(self, model: Model, wanted: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, InputMoments]]:
        """Each of these with what its layer reads: known, or seen in a pass for as many as memory has room for."""
        group: list[_Wanted] = []
        for one in wanted:
            known = self._seen.get((model.digest, one.layer.name))
            if known is not None:
                yield one, known
                continue
            group.append(one)
            if sum(each.inputs.count**2 * 4 for each in group) > TOGETHER:
                yield from self._pass(model, group[:-1])
                group = group[-1:]
        yield from self._pass(model, group)

    def _pass(self, model: Model, group: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, InputMoments]]:
        if not group:
            return
        found = self._seen_by(model, group)
        kept = sum(moments.nbytes for moments in self._seen.values())
        if kept + sum(moments.nbytes for moments in found.values()) <= TOGETHER:
            self._seen.update({(model.digest, name): moments for name, moments in found.items()})
        names = [one.layer.name for one in group]
        self._tell({name: "it reads nothing" for name in names if name not in found})
        yield from ((one, found[one.layer.name]) for one in group if one.layer.name in found)

    def _seen_by(self, model: Model, group: Sequence[_Wanted]) -> Mapping[str, InputMoments]:
        """What layers read, but for those that read nothing at all."""
        names, found = {one.layer.activations[0] for one in group}, dict[str, InputMoments]()
        data = self.calibration.data
        samples = min(SAMPLES, len(data))
        each = {one.layer.name: math.ceil(_rows(one.inputs) / samples) for one in group}
        draws, done = np.random.default_rng(0).random((samples, math.ceil(MOST / samples))), 0
        self.calibration.on_progress(0, 0)
        with closing(self.calibration.engine.open_graph(model.program, sorted(names))) as runner:
            size = part_size(model, runner, data)
            for batch in data.subset(calibration_order(data)[:samples]).batches(size):
                part = runner(batch.inputs)
                for one in group:
                    name, own = one.layer.name, draws[done : done + len(batch), : each[one.layer.name]]
                    rows = one.inputs.rows(part[one.layer.activations[0]], own)
                    if name in found:
                        found[name].add(rows)
                    elif rows.shape[1]:
                        found[name] = InputMoments(rows)
                del part  # what made it needs the memory for the next one
                done += len(batch)
                self.calibration.on_progress(done, samples)
        return found

    def _integers(self, wanted: _Wanted, moments: InputMoments, *, centered: bool) -> Array:
        """The integers of a layer's weight, in its shape. Raises TrialError."""
        layer, record = wanted.layer, wanted.record
        samples = moments.samples(centered=centered)
        few = samples is not None
        seen = moments.moment(centered=centered) if samples is None else samples
        groups, _, inputs = seen.shape
        if record.balance:
            factors = np.array(record.balance).reshape(groups, 1, wanted.inputs.channels)
            each = np.broadcast_to(factors, (groups, wanted.inputs.kernel, wanted.inputs.channels))
            divided = each.reshape(groups, 1, inputs)
            seen /= divided if few else divided.swapaxes(1, 2) * divided
        rows = wanted.rows.reshape(groups, -1, inputs)
        scales = np.broadcast_to(np.array(record.scale_w), layer.channels).reshape(groups, -1)
        highest = 2 ** (record.weight_bits - 1) - 1
        lowest = -highest if wanted.narrow else -highest - 1
        rounded = compensated_by_samples if few else compensated
        try:
            integers = rounded(rows, scales, seen, lowest=lowest, highest=highest)
        except ValueError:
            raise TrialError(layer.name, "the squares of what it reads are beyond float32", hint=IN_FLOAT) from None
        return from_channels(integers.reshape(layer.channels, -1), layer.weight_shape, layer.channel_axes)

    def _path(self, key: str) -> Path | None:
        return None if self.cache is None else self.cache / f"weight-{key[:16]}.npz"


def _rows(inputs: WeightInputs) -> int:
    """How many places it takes to know the moments of what weights meet."""
    return min(max(OF_INPUT * inputs.count, FEWEST), MOST)


def _is_centered(plan: Plan, layer: Layer) -> bool:
    """Whether the mean of a layer's error is left to its bias."""
    return plan.bias_correction != "none" and layer.bias is not None
