"""Sensitivity without gradients: how far the output goes when one layer alone is quantized, measured on LiteRT.

Candidates are variants in one file: a layer's operator once more, fake-quantized, and copies of all operators behind
it. What is before the layer is computed once, for the float model and for all variants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.engine import of_bounded_outputs
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Affine
from autoquant.quiet import no_progress
from autoquant.tuning.sensitivity.likelihoods import Likelihood, OutputReading, likelihood_of
from autoquant.tuning.sensitivity.request import Sensitivities, SensitivityRequest

GROUP = 1 << 28
"""Bytes of constants, counted for each variant that reads them, in one file."""
OPERATORS = 4000
"""Operators that are added to one file."""
BATCH, FEWEST = 64, 8
FLOAT = "float"
"""The outputs of the float model are called `float/<output>`, those of a variant `<number>/<output>`."""


@dataclass(frozen=True, slots=True)
class RoundedTensor:
    """A tensor, by index, that is rounded to INT8 and back for whatever reads it."""

    tensor: int
    affine: Affine


Variant = FakeQuantized | RoundedTensor
Key = TypeVar("Key", bound=Hashable)


def divergence(request: SensitivityRequest, *, reason: str = "") -> Sensitivities:
    """Sensitivity of every candidate, by running what is behind its layer once more for each.

    A graph of TensorFlow is converted. Divergences are summed over outputs. `reason` is why this is done. Raises
    ModelError where the converter refuses the model or leaves no operator of a layer, or where LiteRT cannot run a
    part of it on its own, TrialError where it does not run at all, PlanError where a layer cannot have the settings or
    the statistics lack what they want.
    """
    if isinstance(request.model.program, LiteGraph):
        from autoquant.tuning.sensitivity.candidates import fake_quantized_layers

        lite, variants = request.model.program, fake_quantized_layers(request)
    else:
        from autoquant.evaluation.engines.fake_quant_places import convert_with_places
        from autoquant.tuning.sensitivity.candidates import converted_layers

        layers = [request.layers[name] for name in request.candidates]
        lite, places = convert_with_places(request.model.graph, layers)
        variants = converted_layers(request, lite, places)
    data = request.sample_subset
    likelihoods, total = read_outputs(lite, data, request.reading), sum(map(len, request.candidates.values()))
    values = divergences(lite, variants, data, likelihoods, total=total, on_progress=request.on_progress)
    return request.result_from(values, "divergence", reason)


def read_outputs(lite: LiteGraph, data: Dataset, reading: OutputReading) -> Mapping[str, Likelihood]:
    """How to read each output that counts, from what the model computes for the first BATCH samples.

    Of few samples the columns of an output hardly vary, and every change is large beside that; there are FEWEST at
    least where outputs are large. Raises ModelError where no output holds real numbers, TrialError where LiteRT does
    not run the model.
    """
    names = list(_real_outputs(lite, reading))
    with closing(LiteRTRunner(lite.content, lite.inputs, names, cores())) as runner:
        batch = next(iter(data.batches(BATCH)))
        size = len(next(of_bounded_outputs(runner, [batch], data.inputs)))
        found = runner(batch.part(slice(max(size, FEWEST))).inputs)
        return {name: likelihood_of(found[name], reading) for name in names}


def divergences(
    lite: LiteGraph,
    variants: Iterable[tuple[Key, Variant]],
    data: Dataset,
    likelihoods: Mapping[str, Likelihood],
    *,
    total: int = 0,
    on_progress: OnProgress = no_progress,
) -> dict[Key, float]:
    """The mean divergence, in nats, of the outputs of each variant of a .tflite; infinite where it is no number.

    `likelihoods` are those of the outputs that count. `on_progress` is told how many of a `total` are done, those
    that share a file by their samples. Raises as `divergence`.
    """
    found: dict[Key, float] = {}
    for group in _groups(lite, variants):
        before, size = len(found), len(group)

        def on_samples(done: int) -> None:
            on_progress(before + size * done // len(data), total)  # noqa: B023  # called before the next group

        found |= zip(group, _measured(lite, list(group.values()), data, likelihoods, on_samples), strict=True)
    return found


def file_divergence(lite: LiteGraph, content: bytes, data: Dataset, likelihoods: Mapping[str, Likelihood]) -> float:
    """The mean divergence, in nats, of the outputs of another file of the same model. Raises TrialError."""
    total = 0.0
    runners = (LiteRTRunner(one, lite.inputs, list(likelihoods), cores()) for one in (lite.content, content))
    with ExitStack() as stack:
        plain, other = (stack.enter_context(closing(runner)) for runner in runners)
        for batch in of_bounded_outputs(plain, data.batches(BATCH), data.inputs):
            before, after = plain(batch.inputs), other(batch.inputs)
            for name, likelihood in likelihoods.items():
                total += float(np.maximum(likelihood.divergence(before[name], after[name]), 0.0).sum())
    return total / len(data) if np.isfinite(total) else np.inf


def _groups(lite: LiteGraph, variants: Iterable[tuple[Key, Variant]]) -> Iterator[Mapping[Key, Variant]]:
    """Variants side by side, as many as one file takes."""
    group: dict[Key, Variant] = {}
    size = operators = 0
    for key, variant in variants:
        suffix = Suffix.of(lite, variant)
        if group and (size + suffix.size > GROUP or operators + len(suffix.operators) > OPERATORS):
            yield group
            group, size, operators = {}, 0, 0
        group[key] = variant
        size, operators = size + suffix.size, operators + len(suffix.operators)
    if group:
        yield group


def _measured(
    lite: LiteGraph,
    group: Sequence[Variant],
    data: Dataset,
    likelihoods: Mapping[str, Likelihood],
    on_samples: Callable[[int], None],
) -> list[float]:
    """The mean divergence of each variant's outputs; `on_samples` is told how many samples are done."""
    outputs = {name: int(i) for name, i in zip(lite.outputs, lite.subgraph.outputs, strict=True) if name in likelihoods}
    builder = LiteBuilder(lite)
    tensors = {f"{FLOAT}/{name}": index for name, index in outputs.items()}
    for number, variant in enumerate(group):
        own = _add_variant(builder, variant)
        tensors |= {f"{number}/{name}": own[index] for name, index in outputs.items() if index in own}
    total, done = np.zeros(len(group)), 0
    on_samples(done)
    with closing(LiteRTRunner(builder.write(tensors), lite.inputs, list(tensors), cores())) as runner:
        for batch in of_bounded_outputs(runner, data.batches(BATCH), data.inputs):
            found = runner(batch.inputs)
            for name in outputs:
                before = found[f"{FLOAT}/{name}"]
                for number in range(len(group)):
                    if f"{number}/{name}" in found:
                        divergences = likelihoods[name].divergence(before, found[f"{number}/{name}"])
                        total[number] += np.maximum(divergences, 0.0).sum()  # rounding can make them less than nothing
            done += len(batch)
            on_samples(done)
    return [float(value) / len(data) if np.isfinite(value) else np.inf for value in total]


def _real_outputs(lite: LiteGraph, reading: OutputReading) -> Mapping[str, int]:
    """The outputs that are real numbers and count, and their tensors."""
    outputs = dict(zip(lite.outputs, map(int, lite.subgraph.outputs), strict=True))
    real = {name: i for name, i in outputs.items() if lite.subgraph.tensors[i].type == schema.TensorType.FLOAT32}
    if not real:
        raise ModelError("model", "has no output of float32", hint="choose another one with --outputs")
    return {name: real[name] for name in reading.counting(list(real))}


@dataclass(frozen=True)
class Suffix:
    """The operators of a .tflite, by index and in order, that a variant reaches; its own operator is the first."""

    lite: LiteGraph
    operators: tuple[int, ...]
    tensor: int | None = None

    @classmethod
    def of(cls, lite: LiteGraph, variant: Variant) -> Suffix:
        """Find them."""
        if isinstance(variant, RoundedTensor):
            return cls(lite, tuple(_reached(lite, {variant.tensor}, after=-1)), variant.tensor)
        results = set(map(int, lite.operators[variant.operator].outputs))
        return cls(lite, (variant.operator, *_reached(lite, results, after=variant.operator)))

    @cached_property
    def inputs(self) -> frozenset[int]:
        """The tensors that they read, and that which is rounded."""
        own = () if self.tensor is None else (self.tensor,)
        return frozenset((*own, *(int(t) for index in self.operators for t in self.lite.operators[index].inputs)))

    @property
    def size(self) -> int:
        """Bytes of the constants that they read, of which kernels keep copies of their own."""
        tensors, buffers = self.lite.subgraph.tensors, self.lite.model.buffers
        data = (buffers[tensors[tensor].buffer].data for tensor in self.inputs if tensor >= 0)
        return sum(len(one) for one in data if one is not None)

    @property
    def ready(self) -> int:
        """How many operators of the file come first, so that all is there that these do not make themselves."""
        own = set(self.operators)
        makers = (self.lite.makers.get(tensor, -1) for tensor in self.inputs)
        return max((maker + 1 for maker in makers if maker not in own), default=0)


def _reached(lite: LiteGraph, tensors: Collection[int], *, after: int) -> Iterator[int]:
    """The operators behind one of this index that any of the tensors reaches."""
    reached = set(tensors)
    for index in range(after + 1, len(lite.operators)):
        if not reached.isdisjoint(map(int, lite.operators[index].inputs)):
            yield index
            reached |= set(map(int, lite.operators[index].outputs))


def _add_variant(builder: LiteBuilder, variant: Variant) -> Mapping[int, int]:
    """Add the operators of a variant; gives for each tensor that they make again, the one that they made.

    Raises ModelError where one of them cannot be doubled.
    """
    lite, suffix, own = builder.lite, Suffix.of(builder.lite, variant), dict[int, int]()
    if any(builder.tensor(tensor).isVariable for tensor in suffix.inputs if tensor >= 0):
        name = lite.name_of(variant.tensor) if isinstance(variant, RoundedTensor) else variant.layer
        raise ModelError(name, "an operator behind it keeps a state", hint="it cannot be measured alone")
    if isinstance(variant, RoundedTensor):
        scale, zero = variant.affine.scale, variant.affine.offset
        own[variant.tensor] = builder.quantize_dequantize(variant.tensor, scale, zero, at=suffix.ready)
    for index in suffix.operators:
        op = builder.copied(index, own)
        if isinstance(variant, FakeQuantized) and index == variant.operator:
            fake_quantize(builder, op, variant, at=suffix.ready)
        own |= {tensor: builder.like(tensor) for tensor in op.outputs}
        op.outputs = [own[tensor] for tensor in op.outputs]
        builder.place(op, at=suffix.ready)
    return own
