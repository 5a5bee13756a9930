"""Models of LiteRT measured side by side, whole and operator by operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.latency.latency import Latency, ModelTime, OperatorTime, Spread
from autoquant.evaluation.latency.models import opened
from autoquant.evaluation.latency.operators import operator_seconds, operators_of, side_by_side
from autoquant.evaluation.latency.rounds import RoundsBudget, interleaved, noise, seconds_of_others


def measure_latency(
    models: Mapping[str, bytes],
    samples: Sequence[Array],
    *,
    threads: int = 1,
    budget: RoundsBudget | None = None,
    layers: Mapping[str, str] = MappingProxyType({}),
    clock: Callable[[], float] = time.perf_counter,
    others: Callable[[], float | None] = seconds_of_others,
) -> Latency:
    """Time models, by name, on one batch of samples in the order of their inputs; the first is the reference.

    `budget` holds for the whole models, and once more for all of their operators. `layers` gives the name of the layer
    that computes a tensor. `others` gives the processor time that other processes used so far. Raises ModelError where
    a model cannot be run.
    """
    budget = budget or RoundsBudget()
    calls = [opened(name, content, samples, threads=threads).invoke for name, content in models.items()]
    begin, before = clock(), others()
    times = interleaved(calls, clock, budget)
    took, after = clock() - begin, others()
    operators = [operators_of(name, content, samples) for name, content in models.items()]
    seconds = operator_seconds(operators, threads=threads, clock=clock, budget=budget)
    rows = [
        OperatorTime(layers.get(tensor, tensor), kind, each)
        for (kind, tensor), each in side_by_side(operators, seconds).items()
    ]
    return Latency(
        threads=threads,
        batch_size=len(samples[0]) if samples[0].ndim else 1,
        rounds=len(times),
        models=tuple(
            ModelTime(name, Spread.of(own), Spread.of(times[:, 0] / own), sum(least) / float(np.min(own)))
            for name, own, least in zip(models, times.T, seconds, strict=True)
        ),
        operators=tuple(sorted(rows, key=lambda row: -row.slowest)),
        noise=noise(times, took, after - before if before is not None and after is not None else None),
    )
