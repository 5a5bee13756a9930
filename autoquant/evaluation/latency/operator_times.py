"""Times of every operator of a model in float and in INT8, and of conversions, measured once a run and cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.cache import CacheEntry, cached
from autoquant.evaluation.latency.latency import RoundsBudget
from autoquant.evaluation.latency.operators import (
    DEQUANTIZE,
    QUANTIZE,
    conversion,
    operator_seconds,
    operators_of,
    side_by_side,
)
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import tensor_shapes
from autoquant.model.operators import canonical
from autoquant.targets.litert_assignment import flows

VERSION = 2
BUDGET = RoundsBudget(seconds=4.0, rounds=200)
"""For all operators together."""


@dataclass(frozen=True, eq=False)
class OperatorTimes:
    """Least seconds of each operator of a float model by index, in float and INT8: shape (operators,), NaN if unknown.

    `quantize` and `dequantize` are seconds of a conversion of a tensor, by the tensor's name.
    """

    in_float: Array
    in_int8: Array
    quantize: Mapping[str, float]
    dequantize: Mapping[str, float]

    @property
    def expected_int8(self) -> Array:
        """`in_int8`, where an operator whose INT8 version was never seen is taken to be as fast as in float."""
        return np.where(np.isnan(self.in_int8), self.in_float, self.in_int8)

    def total(self, int8: Collection[int], converted: Sequence[tuple[str, str]]) -> float:
        """Seconds with these operators in INT8, and these conversions as (kind, tensor)."""
        chosen = np.zeros(len(self.in_float), bool)
        chosen[list(int8)] = True
        conversions = sum((self.quantize if kind == QUANTIZE else self.dequantize)[name] for kind, name in converted)
        return float(np.nansum(np.where(chosen, self.expected_int8, self.in_float))) + conversions


def measured_times(
    lite: LiteGraph, int8: bytes, samples: Sequence[Array], budget: RoundsBudget = BUDGET
) -> OperatorTimes:
    """Time the operators of a float model and of an INT8 model made of it on a batch of samples, on one thread."""
    shapes = tensor_shapes(lite, {name: array.shape for name, array in zip(lite.inputs, samples, strict=True)})
    sizes = {lite.name_of(flow.tensor): prod(size or 1 for size in shapes[flow.tensor]) for flow in flows(lite)}
    kinds = [(kind, size) for kind in (QUANTIZE, DEQUANTIZE) for size in sorted(set(sizes.values()))]
    models = [operators_of("float model", lite.content, samples), operators_of("INT8 model", int8, samples)]
    conversions = [conversion(kind, (size,)) for kind, size in kinds]
    *seconds, converted = operator_seconds([*models, conversions], threads=1, clock=time.perf_counter, budget=budget)
    found, converting = side_by_side(models, seconds), dict(zip(kinds, converted, strict=True))
    makes = [(lite.kind(at), canonical(lite.name_of(op.outputs[0]))) for at, op in enumerate(lite.operators)]
    own = [found.get(made, (None, None)) for made in makes]
    in_float, in_int8 = np.array(own, np.float64).T
    return OperatorTimes(
        in_float,
        in_int8,
        {name: converting[QUANTIZE, size] for name, size in sizes.items()},
        {name: converting[DEQUANTIZE, size] for name, size in sizes.items()},
    )


def cached_times(path: Path, key: str, measure: Callable[[], OperatorTimes]) -> OperatorTimes:
    """The times in a file, of an earlier measurement under the same key, or those that are measured and written now."""

    def entry() -> CacheEntry:
        times = measure()
        conversions = {"quantize": times.quantize, "dequantize": times.dequantize}
        return CacheEntry(conversions, {"in_float": times.in_float, "in_int8": times.in_int8})

    found = cached(path, entry, key=key, version=VERSION)
    return OperatorTimes(found.arrays["in_float"], found.arrays["in_int8"], **found.header)
