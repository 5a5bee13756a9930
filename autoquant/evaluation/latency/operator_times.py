"""Times of every operator of a model in float and in integers, and of conversions, measured once a run and cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod
from pathlib import Path
from types import MappingProxyType

import numpy as np

from autoquant.array import Array
from autoquant.cache import CacheEntry, cached
from autoquant.evaluation.latency.latency import RoundsBudget
from autoquant.evaluation.latency.operators import (
    conversion,
    operator_seconds,
    operators_of,
    side_by_side,
)
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import tensor_shapes
from autoquant.model.operators import canonical
from autoquant.targets.litert_assignment import Conversion, flows

VERSION = 3
BUDGET = RoundsBudget(seconds=4.0, rounds=200)
"""For all operators together."""
NAMES: Mapping[int, str] = MappingProxyType({0: "float model", 8: "INT8 model", 16: "INT16 model"})
"""Bits -> what errors call a model with such activations."""


Ends = tuple[int, int]
"""The bits that a conversion reads and makes; 0 is float."""


@dataclass(frozen=True, eq=False)
class OperatorTimes:
    """Least seconds of each operator of a float model, by the bits of its activations, and of conversions.

    `seconds` are of float, 0, of INT8, 8, and of INT16, 16, where that was measured: by index, shape (operators,), NaN
    if unknown. `conversions` are of each tensor, by its name.
    """

    seconds: Mapping[int, Array]
    conversions: Mapping[Ends, Mapping[str, float]]

    @property
    def in_float(self) -> Array:
        """Of float."""
        return self.seconds[0]

    def expected(self, bits: int) -> Array:
        """Of so many bits, where an operator that was never seen with them is taken to be as fast as in float."""
        return np.where(np.isnan(self.seconds[bits]), self.in_float, self.seconds[bits])

    @property
    def fastest_integers(self) -> Array:
        """The least of INT8 and INT16."""
        return np.asarray(np.min([self.expected(bits) for bits in self.seconds if bits], axis=0))

    def least_conversion(self, name: str, *, to_float: bool) -> float:
        """The least of a tensor from integers to float, or from float to integers."""
        end = 1 if to_float else 0
        return min(own[name] for ends, own in self.conversions.items() if ends[end] == 0)

    def total(self, operators: Mapping[int, int], converted: Sequence[Conversion]) -> float:
        """Seconds with these operators in integers of so many bits, and these conversions."""
        chosen = np.array(self.in_float)
        expected = {bits: self.expected(bits) for bits in set(operators.values())}
        for index, bits in operators.items():
            chosen[index] = expected[bits][index]
        return float(np.nansum(chosen)) + sum(self.conversions[one.source, one.result][one.tensor] for one in converted)


def measured_times(
    lite: LiteGraph, integers: Mapping[int, bytes], samples: Sequence[Array], budget: RoundsBudget = BUDGET
) -> OperatorTimes:
    """Time the operators of a float model and of integer models made of it, by bits, on a batch of samples.

    On one thread.
    """
    shapes = tensor_shapes(lite, {name: array.shape for name, array in zip(lite.inputs, samples, strict=True)})
    sizes = {lite.name_of(flow.tensor): prod(size or 1 for size in shapes[flow.tensor]) for flow in flows(lite)}
    bits = (0, *sorted(integers))
    ends = list(permutations(bits, 2))
    kinds = [(own, size) for own in ends for size in sorted(set(sizes.values()))]
    contents = {0: lite.content, **integers}
    models = [operators_of(NAMES[own], contents[own], samples) for own in bits]
    conversions = [conversion(source, result, (size,)) for (source, result), size in kinds]
    *seconds, converted = operator_seconds([*models, conversions], threads=1, clock=time.perf_counter, budget=budget)
    found, converting = side_by_side(models, seconds), dict(zip(kinds, converted, strict=True))
    makes = [(lite.kind(at), canonical(lite.name_of(op.outputs[0]))) for at, op in enumerate(lite.operators)]
    own = np.array([found.get(made, (None,) * len(bits)) for made in makes], np.float64).reshape(len(makes), len(bits))
    return OperatorTimes(
        dict(zip(bits, own.T, strict=True)),
        {pair: {name: converting[pair, size] for name, size in sizes.items()} for pair in ends},
    )


def cached_times(path: Path, key: str, measure: Callable[[], OperatorTimes]) -> OperatorTimes:
    """The times in a file, of an earlier measurement under the same key, or those that are measured and written now."""

    def entry() -> CacheEntry:
        times = measure()
        conversions = {f"{source} {result}": dict(own) for (source, result), own in times.conversions.items()}
        return CacheEntry(conversions, {str(bits): own for bits, own in times.seconds.items()})

    found = cached(path, entry, key=key, version=VERSION)
    return OperatorTimes(
        {int(bits): own for bits, own in found.arrays.items()},
        {(int(source), int(result)): own for ends, own in found.header.items() for source, result in [ends.split()]},
    )
