"""Sensitivity without gradients: how far the output goes when one layer alone is quantized, measured on LiteRT.

Candidates are variants in one file: a layer's operator once more, fake-quantized, and copies of all operators behind
it. What is before the layer is computed once, for the float model and for all variants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.tuning.sensitivity.likelihoods import Likelihood, likelihood_of
from autoquant.tuning.sensitivity.request import CandidateKey, Sensitivities, SensitivityRequest

GROUP = 1 << 28
"""Bytes of constants, counted for each variant that reads them, in one file."""
OPERATORS = 4000
"""Operators that are added to one file."""
BATCH = 64
FLOAT = "float"
"""The outputs of the float model are called `float/<output>`, those of a variant `<number>/<output>`."""

Variants = Mapping[CandidateKey, FakeQuantized]


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
        from autoquant.model.litert.convert import convert
        from autoquant.tuning.sensitivity.candidates import converted_layers

        lite = convert(request.model.graph)
        variants = converted_layers(request, lite)
    samples, values = request.sample_subset, dict[CandidateKey, float]()
    for group in _groups(lite, variants):
        values |= zip(group, _measured(lite, group, samples, request.of_classes), strict=True)
    return request.result_from(values, "divergence", reason)


def _groups(lite: LiteGraph, variants: Iterable[tuple[CandidateKey, FakeQuantized]]) -> Iterator[Variants]:
    """Variants side by side, as many as one file takes."""
    group: dict[CandidateKey, FakeQuantized] = {}
    size = operators = 0
    for key, variant in variants:
        suffix = Suffix(lite, variant.operator)
        if group and (size + suffix.size > GROUP or operators + len(suffix.operators) > OPERATORS):
            yield group
            group, size, operators = {}, 0, 0
        group[key] = variant
        size, operators = size + suffix.size, operators + len(suffix.operators)
    if group:
        yield group


def _measured(lite: LiteGraph, group: Variants, data: Dataset, of_classes: bool) -> list[float]:
    """The mean divergence of each variant's outputs."""
    outputs = _real_outputs(lite)
    builder = LiteBuilder(lite)
    tensors = {f"{FLOAT}/{name}": index for name, index in outputs.items()}
    for number, variant in enumerate(group.values()):
        own = _add_variant(builder, variant)
        tensors |= {f"{number}/{name}": own[index] for name, index in outputs.items() if index in own}
    likelihoods: dict[str, Likelihood] = {}
    total = np.zeros(len(group))
    with closing(LiteRTRunner(builder.write(tensors), lite.inputs, list(tensors), cores())) as runner:
        for batch in data.batches(BATCH):
            found = runner(batch.inputs)
            for name in outputs:
                before = found[f"{FLOAT}/{name}"]
                likelihood = likelihoods.setdefault(name, likelihood_of(before, of_classes=of_classes))
                for number in range(len(group)):
                    if f"{number}/{name}" in found:
                        divergences = likelihood.divergence(before, found[f"{number}/{name}"])
                        total[number] += np.maximum(divergences, 0.0).sum()  # rounding can make them less than nothing
    return [float(value) / len(data) if np.isfinite(value) else np.inf for value in total]


def _real_outputs(lite: LiteGraph) -> Mapping[str, int]:
    """The outputs that are real numbers, and their tensors."""
    outputs = dict(zip(lite.outputs, map(int, lite.subgraph.outputs), strict=True))
    real = {name: i for name, i in outputs.items() if lite.subgraph.tensors[i].type == schema.TensorType.FLOAT32}
    if not real:
        raise ModelError("model", "has no output of float32", hint="choose another one with --outputs")
    return real


@dataclass(frozen=True)
class Suffix:
    """The operators of a .tflite, by index and in order, that an operator's result reaches, itself first."""

    lite: LiteGraph
    operator: int

    @cached_property
    def operators(self) -> tuple[int, ...]:
        """Their indices."""
        every = self.lite.operators
        reached = set(map(int, every[self.operator].outputs))
        found = [self.operator]
        for index in range(self.operator + 1, len(every)):
            if not reached.isdisjoint(map(int, every[index].inputs)):
                found.append(index)
                reached |= set(map(int, every[index].outputs))
        return tuple(found)

    @property
    def inputs(self) -> frozenset[int]:
        """The tensors that they read."""
        return frozenset(int(t) for index in self.operators for t in self.lite.operators[index].inputs)

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


def _add_variant(builder: LiteBuilder, variant: FakeQuantized) -> Mapping[int, int]:
    """Add the operators of a variant; gives for each tensor that they make again, the one that they made.

    Raises ModelError where one of them cannot be doubled.
    """
    suffix = Suffix(builder.lite, variant.operator)
    if any(builder.tensor(tensor).isVariable for tensor in suffix.inputs if tensor >= 0):
        raise ModelError(variant.layer, "an operator behind it keeps a state", hint="it cannot be measured alone")
    own: dict[int, int] = {}
    for index in suffix.operators:
        op = builder.copied(index, own)
        if index == variant.operator:
            fake_quantize(builder, op, variant, at=suffix.ready)
        own |= {tensor: builder.like(tensor) for tensor in op.outputs}
        op.outputs = [own[tensor] for tensor in op.outputs]
        builder.place(op, at=suffix.ready)
    return own
