"""Whether two engines compute the same of a model, on real samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Outputs, content_of
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.engine import Runner, bytes_of, of_bounded_outputs, run_batch
from autoquant.evaluation.statistics.stream_order import check_points
from autoquant.quiet import no_progress

SAMPLES, MOST = 512, 4096
"""So many samples are compared; where they leave it open whether enough agree, more and more, up to MOST or all."""
MIN_AGREEMENT = 0.999
"""The least share of samples that must get the same class."""
TIE = 1e-6
"""Scores this close, relative to the highest, are equal to float32, a few of whose steps it is: neither comes first."""
FLOAT_BOUND = 1e-4
"""The most that outputs of the FP32 model may differ, as rms, relative to the outputs.

Sums of n products in another order differ by about sqrt(n) * 2^-24 (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, chapter 4), so a hundred layers of a thousand each by less than 1e-5. A step of INT8 over the range of
an output is 1/255 of that: the bound is a fortieth of one.
"""
INT8_BOUND = 0.25
"""The most that outputs of an INT8 model may differ, as rms, relative to what quantization itself does to them.

Values that lie between two steps are rounded up here and down there, and each such flip is passed on by the layers
behind. What is added to the error of quantization is independent of it, so the total grows by sqrt(1 + 0.25^2): 3 %.
"""
NUDGE = 2.0**-17
"""The inputs of a model that is compared with itself differ by up to this, relative to them.

That is what the arithmetic of another engine, which differs in every layer, makes of the outputs of the FP32 model, as
rms: 1e-6 to 6e-5 of them in ten models of keras.applications.
"""
REMEMBERED = 1 << 26
"""Bytes of outputs: of 512 samples of 32,000 numbers."""
MARGIN, MOST_APART = 1.5, math.sqrt(2.0)
"""So many times as much as a nudged model differs from itself, another engine's may; at most as two models do whose
errors of quantization are as large and independent."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The `agreement`, a share of the `samples`, and the `difference` of the output that differs most.

    Engines agree on a sample where each output that is scores of classes has the same highest one, but for ties, and
    each that is integers the same values. `difference` is rms(ours - theirs) / rms(what it is relative to), in float64
    over all values; NaN where any output has one.
    """

    samples: int
    agreement: float
    difference: float

    def within(self, bound: float) -> bool:
        """Whether they agree on enough samples, and outputs differ by no more than this."""
        return self.agreement >= MIN_AGREEMENT and self.difference <= bound

    def within_itself(self, itself: Comparison) -> bool:
        """Whether an INT8 model differs so from itself, when it is nudged, that this is no more.

        One sample more may get another class: so little is known of few samples.
        """
        bound = min(MOST_APART, MARGIN * itself.difference)
        different = MARGIN * (1.0 - itself.agreement + 1.0 / itself.samples)
        return self.difference <= bound and 1.0 - self.agreement <= different

    def __str__(self) -> str:
        return f"{self.agreement:.2%} of {self.samples} samples agree, outputs differ by {self.difference:.2g}"


class Remembered:
    """A runner that is opened when it is first needed, and remembers its outputs: comparisons are of the same batches.

    Up to so many bytes of outputs; when it is closed they remain.
    """

    def __init__(self, opened: Callable[[], Runner], most: int = REMEMBERED) -> None:
        self._opened, self._left = opened, most
        self._runner: Runner | None = None
        self._known: dict[bytes, Mapping[str, Array]] = {}

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs of a batch."""
        key = _digest(inputs)
        if key in self._known:
            return self._known[key]
        if self._runner is None:
            self._runner = self._opened()
        found = self._runner(inputs)
        size = bytes_of(found)
        if size <= self._left:
            self._known[key], self._left = found, self._left - size
        return found

    def close(self) -> None:
        """Close the runner; it is opened again where it is needed."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None


@dataclass(frozen=True)
class Nudged:
    """A runner that reads its inputs changed by NUDGE.

    Many layers pass flips on until there are as many as can be; then a model differs from itself by more than
    INT8_BOUND, as does another engine that computes the same.
    """

    runner: Runner

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs of a batch."""
        random = np.random.default_rng(0)
        nudged = {}
        for name, array in inputs.items():
            factors = 1.0 + NUDGE * random.uniform(-1.0, 1.0, array.shape)
            nudged[name] = (array * factors).astype(array.dtype) if array.dtype.kind == "f" else array
        return self.runner(nudged)

    def close(self) -> None:
        """Close the runner."""
        self.runner.close()


def compare(
    ours: Runner,
    theirs: Runner,
    data: Dataset,
    *,
    batch_size: int,
    of_classes: bool,
    plain: Runner | None = None,
    on_progress: Callable[[int, int], None] = no_progress,
) -> Comparison:
    """Run two engines over samples drawn from all over the data, always the same ones.

    `of_classes` says that outputs of shape (batch, 2 or more) are scores of classes. With `plain`, the FP32 model,
    differences are relative to what quantization does, rms(theirs - plain), but to no less than FLOAT_BOUND /
    INT8_BOUND of the FP32 outputs, so that float rounding is never too much; without it to rms(theirs). Raises as
    `run_batch`.
    """
    order = np.random.default_rng(0).permutation(len(data))[:MOST]
    sums: dict[str, Array] = {}
    done, agreed = 0, 0
    for stop in check_points(len(order), first=SAMPLES, growth=2.0):
        batches = data.subset(order[done:stop]).batches(batch_size)
        for batch in of_bounded_outputs(theirs, batches, data.inputs):
            found, wanted = run_batch(ours, batch), run_batch(theirs, batch)
            before = wanted if plain is None else run_batch(plain, batch)
            for name in wanted:
                sums[name] = sums.get(name, 0.0) + _squares(found[name], wanted[name], before[name])
            agreed += int(_agreed(found, wanted, of_classes=of_classes).sum())
            done += len(batch)
            on_progress(done, max(stop, done))
        if agreed >= MIN_AGREEMENT * done:
            break
    differences = [_difference(each, quantized=plain is not None) for each in sums.values()]
    return Comparison(done, agreed / done, math.nan if any(map(math.isnan, differences)) else max(differences))


def _digest(inputs: Mapping[str, Array]) -> bytes:
    """What distinguishes a batch from others."""
    digest = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(content_of(array))
    return digest.digest()


def _squares(ours: Array, theirs: Array, plain: Array) -> Array:
    """Sums of squares of one output, (3,): of ours - theirs, of theirs - plain, of plain; 0 of integers."""
    if theirs.dtype.kind != "f":
        return np.zeros(3)
    one, other, before = (array.astype(np.float64) for array in (ours, theirs, plain))
    return np.asarray([(part * part).sum() for part in (one - other, other - before, before)])


def _difference(squares: Array, *, quantized: bool) -> float:
    difference, moved, size = np.sqrt(squares).tolist()
    scale = max(moved, size * FLOAT_BOUND / INT8_BOUND) if quantized else size
    if difference == 0.0:
        return 0.0
    return float(difference / scale) if scale else math.inf


def _agreed(ours: Outputs, theirs: Outputs, *, of_classes: bool) -> Array:
    """On which samples they agree, (batch,)."""
    agreed = np.ones(len(next(iter(theirs.values()))), bool)
    for name, wanted in theirs.items():
        if wanted.dtype.kind != "f":
            agreed &= (ours[name] == wanted).reshape(len(wanted), -1).all(axis=1)
        elif of_classes and wanted.ndim == 2 and wanted.shape[1] > 1:
            agreed &= _same_class(ours[name], wanted)
    return agreed


def _same_class(ours: Array, theirs: Array) -> Array:
    """Whether ours has its highest score where theirs has, or where theirs has one that ties with that; (batch,)."""
    best = theirs.max(axis=1)
    there = np.take_along_axis(theirs, ours.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return np.asarray(there >= best - TIE * np.abs(best))
