"""Sensitivity without gradients: how far the output goes when one layer alone is quantized, measured on LiteRT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from ai_edge_litert.schema_py_generated import TensorType

from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Array
from autoquant.tuning.sensitivity.likelihoods import Likelihood, likelihood_of
from autoquant.tuning.sensitivity.result import Question, Sensitivities
from autoquant.tuning.sensitivity.variants import FLOAT, Suffix, Variant, with_variants

GROUP = 1 << 28
"""Bytes of constants, counted for each variant that reads them, in one file."""
OPERATORS = 4000
"""Operators that are added to one file."""
BATCH = 64


def divergence(question: Question, *, reason: str = "") -> Sensitivities:
    """Sensitivity of every candidate, by running what is behind its layer once more for each.

    A graph of TensorFlow is converted. Divergences are summed over outputs. `reason` is why this is done. Raises
    ModelError where the converter refuses the model or leaves no operator of a layer, or where LiteRT cannot run a
    part of it on its own, TrialError where it does not run at all, PlanError where a layer cannot have the settings or
    the statistics lack what they want.
    """
    lite, variants = _variants(question)
    chosen = question.chosen
    measured = (_measured(lite, group, chosen, question.of_classes) for group in _groups(lite, list(variants.values())))
    values = dict(zip(variants, chain.from_iterable(measured), strict=True))
    return question.answer(values, "divergence", reason)


def _variants(question: Question) -> tuple[LiteGraph, Mapping[tuple[str, int], Variant]]:
    """The .tflite, and each candidate as a variant of it."""
    asked = question.layers, question.candidates, question.statistics, question.batches
    if isinstance(question.model.program, LiteGraph):
        from autoquant.tuning.sensitivity.lite_variants import lite_variants

        return question.model.program, lite_variants(question.model.program, *asked)
    from autoquant.model.litert.convert import convert
    from autoquant.tuning.sensitivity.graph_variants import graph_variants

    lite = convert(question.model.graph)
    return lite, graph_variants(question.model.graph, lite, *asked)


def _groups(lite: LiteGraph, variants: Sequence[Variant]) -> Iterator[Sequence[Variant]]:
    """Variants side by side, as many as one file takes."""
    group: list[Variant] = []
    size = operators = 0
    for variant in variants:
        suffix = Suffix(lite, variant.operator)
        if group and (size + suffix.size > GROUP or operators + len(suffix.operators) > OPERATORS):
            yield group
            group, size, operators = [], 0, 0
        group.append(variant)
        size, operators = size + suffix.size, operators + len(suffix.operators)
    if group:
        yield group


def _measured(lite: LiteGraph, group: Sequence[Variant], data: Dataset, of_classes: bool) -> list[float]:
    """The mean divergence of each variant's outputs."""
    outputs = _real_outputs(lite)
    doubled = with_variants(lite, group, outputs)
    runner = LiteRTRunner(doubled.content, lite.inputs, doubled.outputs, cores())
    likelihoods: dict[str, Likelihood] = {}
    total = np.zeros(len(group))
    try:
        for batch in data.batches(BATCH):
            found = runner(batch.inputs)
            for name in outputs:
                before = found[f"{FLOAT}/{name}"]
                likelihood = likelihoods.setdefault(name, likelihood_of(before, of_classes=of_classes))
                for number in range(len(group)):
                    if f"{number}/{name}" in found:
                        total[number] += _sum(likelihood.divergence(before, found[f"{number}/{name}"]))
    finally:
        runner.close()
    return [float(value) / len(data) for value in total]


def _real_outputs(lite: LiteGraph) -> list[str]:
    tensors = [lite.subgraph.tensors[index] for index in lite.subgraph.outputs]
    real = [name for name, one in zip(lite.outputs, tensors, strict=True) if one.type == TensorType.FLOAT32]
    if not real:
        raise ModelError("model", "has no output of float32", hint="choose another one with --outputs")
    return real


def _sum(divergences: Array) -> float:
    total = float(np.maximum(divergences, 0.0).sum())  # rounding can make it less than nothing
    return total if np.isfinite(total) else np.inf
