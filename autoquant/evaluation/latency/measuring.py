"""Models of LiteRT measured side by side, whole and operator by operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.latency.latency import Latency, OperatorTime, Spread, Timed
from autoquant.evaluation.latency.models import opened
from autoquant.evaluation.latency.operators import Operator, operator_seconds, operators_of
from autoquant.evaluation.latency.rounds import Budget, interleaved, noise, seconds_of_others


def measure_latency(
    models: Mapping[str, bytes],
    samples: Sequence[Array],
    *,
    threads: int = 1,
    budget: Budget | None = None,
    layers: Mapping[str, str] = MappingProxyType({}),
    clock: Callable[[], float] = time.perf_counter,
    others: Callable[[], float | None] = seconds_of_others,
) -> Latency:
    """Time models, by name, on one batch of samples in the order of their inputs; the first is the reference.

    `budget` holds for the whole models, and once more for all of their operators. `layers` gives the name of the layer
    that computes a tensor. `others` gives the processor time that other processes used so far. Raises ModelError where
    a model cannot be run.
    """
    budget = budget or Budget()
    calls = [opened(name, content, samples, threads=threads).invoke for name, content in models.items()]
    begin, before = clock(), others()
    times = interleaved(calls, clock, budget)
    took, after = clock() - begin, others()
    used = after - before if before is not None and after is not None else None
    cut = [operators_of(name, content, samples) for name, content in models.items()]
    seconds = operator_seconds([one for own in cut for one in own], threads=threads, clock=clock, budget=budget)
    parts = _parts(seconds, [len(own) for own in cut])
    return Latency(
        threads=threads,
        batch_size=len(samples[0]) if samples[0].ndim else 1,
        rounds=len(times),
        models=tuple(
            Timed(name, Spread.of(times[:, number]), Spread.of(times[:, 0] / times[:, number]))
            for number, name in enumerate(models)
        ),
        operators=side_by_side(cut, parts, layers),
        covered=tuple(sum(part) / float(np.min(times[:, number])) for number, part in enumerate(parts)),
        noise=noise(times, took, used),
    )


def side_by_side(
    models: Sequence[Sequence[Operator]], seconds: Sequence[Sequence[float]], layers: Mapping[str, str]
) -> tuple[OperatorTime, ...]:
    """Operators of a kind that make the same tensor in several models in one line each, the slowest first.

    `seconds` are those of each operator of each model.
    """
    found: dict[tuple[str, str], list[float | None]] = {}
    for number, (operators, own) in enumerate(zip(models, seconds, strict=True)):
        for one, second in zip(operators, own, strict=True):
            found.setdefault(one.key(found), [None] * len(models))[number] = second
    lines = [OperatorTime(layers.get(name, name), kind, tuple(own)) for (kind, name), own in found.items()]
    return tuple(sorted(lines, key=lambda line: -line.slowest))


def _parts(values: Sequence[float], sizes: Sequence[int]) -> list[Sequence[float]]:
    """Values one after the other as lists of these sizes."""
    edges = np.cumsum([0, *sizes]).tolist()
    return [values[start:stop] for start, stop in pairwise(edges)]
