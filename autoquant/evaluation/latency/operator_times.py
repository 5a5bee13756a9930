"""Times of every operator of a model in float and in INT8, and of conversions, measured once a run and kept."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from autoquant.cache import CacheEntry, read_cache, write_cache
from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.latency.operators import (
    DEQUANTIZE,
    QUANTIZE,
    conversion,
    operator_seconds,
    operators_of,
)
from autoquant.evaluation.latency.rounds import Budget
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.shapes import tensor_shapes
from autoquant.model.names import canonical
from autoquant.targets.litert_assignment import flows

VERSION = 1
BUDGET = Budget(seconds=4.0, rounds=200)
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


def measured_times(lite: LiteGraph, int8: bytes, samples: Sequence[Array], budget: Budget = BUDGET) -> OperatorTimes:
    """Time the operators of a float model and of an INT8 model made of it on a batch of samples, on one thread."""
    groups = [operators_of("float model", lite.content, samples), operators_of("INT8 model", int8, samples)]
    shapes = tensor_shapes(lite, {name: array.shape for name, array in zip(lite.inputs, samples, strict=True)})
    sizes = {
        flatbuffer.tensor_name(lite.subgraph.tensors[flow.tensor]): prod(size or 1 for size in shapes[flow.tensor])
        for flow in flows(lite)
    }
    kinds = [(kind, size) for kind in (QUANTIZE, DEQUANTIZE) for size in sorted(set(sizes.values()))]
    operators = [*groups[0], *groups[1], *(conversion(kind, (size,)) for kind, size in kinds)]
    seconds = iter(operator_seconds(operators, threads=1, clock=time.perf_counter, budget=budget))
    in_float = {one.key(): next(seconds) for one in groups[0]}
    in_int8 = {one.key(in_float): next(seconds) for one in groups[1]}
    converted = {kind: next(seconds) for kind in kinds}
    own = [_key_at(lite, index) for index in range(len(lite.subgraph.operators))]
    return OperatorTimes(
        np.array([in_float.get(key, np.nan) for key in own]),
        np.array([in_int8.get(key, np.nan) for key in own]),
        {name: converted[QUANTIZE, size] for name, size in sizes.items()},
        {name: converted[DEQUANTIZE, size] for name, size in sizes.items()},
    )


def _key_at(lite: LiteGraph, index: int) -> tuple[str, str]:
    op = lite.subgraph.operators[index]
    name = flatbuffer.tensor_name(lite.subgraph.tensors[op.outputs[0]])
    return flatbuffer.op_name(lite.model, op), canonical(name)


def write_times(path: Path, key: str, times: OperatorTimes) -> None:
    """Write times to a file, under a key that says of what. Raises RunError when that cannot be."""
    arrays = {
        "float": times.in_float,
        "int8": times.in_int8,
        "quantize": np.array(list(times.quantize.values())),
        "dequantize": np.array(list(times.dequantize.values())),
    }
    write_cache(path, CacheEntry({"tensors": list(times.quantize)}, arrays), key=key, version=VERSION)


def read_times(path: Path, key: str) -> OperatorTimes | None:
    """What `write_times` wrote, or None when it is not there, damaged or of something else."""
    entry = read_cache(path, key=key, version=VERSION)
    if entry is None:
        return None
    conversions = (
        dict(zip(entry.header["tensors"], entry.arrays[n].tolist(), strict=True)) for n in ("quantize", "dequantize")
    )
    return OperatorTimes(entry.arrays["float"], entry.arrays["int8"], *conversions)
