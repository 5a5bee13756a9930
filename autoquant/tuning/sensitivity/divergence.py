"""Sensitivity without gradients: how far the output goes when one layer alone is quantized, measured on LiteRT.

A candidate is a variant of the model: a layer's operator once more, fake-quantized, and with that all that is behind
it. What is before the layer is computed once, for the float model and for all variants (sweep.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TypeVar

import numpy as np

from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.engine import of_bounded_outputs
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.quiet import no_progress
from autoquant.tuning.sensitivity.likelihoods import Likelihood, OutputReading, likelihood_of
from autoquant.tuning.sensitivity.request import Sensitivities, SensitivityRequest
from autoquant.tuning.sensitivity.sweep import BATCH, Sweep
from autoquant.tuning.sensitivity.variants import Variant

GROUP = 1 << 28
"""Bytes of constants, counted for each variant that reads them, that are opened at once."""
OPERATORS = 4000
"""Operators that are added at once."""
PASSES, FEWEST = 32, 8
"""Over all samples that are asked for, so much may be computed as so many passes; of more layers, fewer samples tell.

What is behind each layer runs once more, so with all samples the time would grow with the square of the layers. There
are FEWEST samples at least.
"""


Key = TypeVar("Key", bound=Hashable)


def divergence(request: SensitivityRequest, *, reason: str = "") -> Sensitivities:
    """Sensitivity of every candidate, by running what is behind its layer once more for each.

    A graph of TensorFlow is converted. Divergences are summed over outputs. `reason` is why this is done. Raises
    ModelError where the converter refuses the model or leaves no operator of a layer, or where LiteRT cannot run a
    part of it on its own, TrialError where it does not run at all, PlanError where a layer cannot have the settings or
    the statistics lack what they want.
    """
    operators: Mapping[str, int]
    if isinstance(request.model.program, LiteGraph):
        from autoquant.tuning.sensitivity.candidates import fake_quantized_layers

        lite, variants = request.model.program, fake_quantized_layers(request)
        operators = lite.layers
    else:
        from autoquant.evaluation.engines.fake_quant_places import convert_with_places
        from autoquant.tuning.sensitivity.candidates import converted_layers

        layers = [request.layers[name] for name in request.candidates]
        lite, places = convert_with_places(request.model.graph, layers)
        variants = converted_layers(request, lite, places)
        operators = {name: place.operator for name, place in places.found.items()}
    behind = {name: 1.0 - index / len(lite.operators) for name, index in operators.items()}
    passes = sum(len(each) * behind.get(name, 0.0) for name, each in request.candidates.items())
    request = replace(request, samples=enough_samples(request.samples, passes))
    data, total = request.sample_subset, sum(map(len, request.candidates.values()))
    likelihoods = read_outputs(lite, request.data.spread(max(BATCH, request.samples)), request.reading)
    values = divergences(lite, variants, data, likelihoods, total=total, on_progress=request.on_progress)
    return request.result_from(values, "divergence", reason)


def enough_samples(wanted: int, passes: float) -> int:
    """As many samples as are wanted, or fewer where so many passes over all of them are more than PASSES.

    >>> enough_samples(256, passes=20.0), enough_samples(256, passes=64.0)
    (256, 128)
    """
    return max(min(wanted, FEWEST), min(wanted, int(wanted * PASSES / max(passes, 1.0))))


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
    with closing(Sweep.of(lite, data, likelihoods)) as sweep:
        for group in _groups(sweep, variants):
            before, size = len(found), len(group)

            def on_samples(done: int) -> None:
                on_progress(before + size * done // len(data), total)  # noqa: B023  # called before the next group

            found |= zip(group, sweep.measured(list(group.values()), data, on_samples), strict=True)
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


def _groups(sweep: Sweep, variants: Iterable[tuple[Key, Variant]]) -> Iterator[Mapping[Key, Variant]]:
    """As many variants as are opened at once."""
    group: dict[Key, Variant] = {}
    size = operators = 0
    for key, variant in variants:
        suffix = sweep.suffix(variant)
        if group and (size + suffix.size > GROUP or operators + len(suffix.operators) > OPERATORS):
            yield group
            group, size, operators = {}, 0, 0
        group[key] = variant
        size, operators = size + suffix.size, operators + len(suffix.operators)
    if group:
        yield group


def _real_outputs(lite: LiteGraph, reading: OutputReading) -> Mapping[str, int]:
    """The outputs that are real numbers and count, and their tensors."""
    outputs = dict(zip(lite.outputs, map(int, lite.subgraph.outputs), strict=True))
    real = {name: i for name, i in outputs.items() if lite.subgraph.tensors[i].type == schema.TensorType.FLOAT32}
    if not real:
        raise ModelError("model", "has no output of float32", hint="choose another one with --outputs")
    return {name: real[name] for name in reading.counting(list(real))}
