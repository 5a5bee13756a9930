"""Assigns INT8 or float to the operators of a .tflite: to layers by the plan, to others by the fewest conversions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.errors import IN_FLOAT, PlanError, did_you_mean
from autoquant.model.litert.graph import LiteGraph
from autoquant.targets.litert_operators import INT8_ENDS, SHAPE_READERS, all_data, quantizable

Cost = TypeVar("Cost", int, float)
INT8, FLOAT = 0, 1
"""The two sides of the cut: its source and its sink."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion: `kind` is QUANTIZE or DEQUANTIZE, `tensor` the name of the tensor of the float model it reads."""

    tensor: str
    kind: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor of data: its maker and its readers, each the index of an operator, INPUTS or OUTPUTS."""

    tensor: int
    maker: int
    readers: tuple[int, ...]


INPUTS, OUTPUTS = -1, -2


def assign_int8(
    lite: LiteGraph, in_float: Collection[str], io: str, *, float_operators: Collection[str] = ()
) -> frozenset[int]:
    """Indices of the operators in INT8.

    Layers are INT8 except those named `in_float`; operators that LiteRT Quantizer cannot make INT8 are float, and so
    are `float_operators`, by the names of their results. Inputs and outputs are of type `io`, float32 or int8. All
    other operators are such that there are the fewest conversions, one for each tensor whatever number of operators
    read it converted; among equals as many as possible are INT8.

    That is a minimum cut whose source is INT8, and its sink float.
    """
    fixed = {**_fixed(lite, in_float, io), **dict.fromkeys(operators_of(lite, float_operators), FLOAT)}
    free = sorted(quantizable(lite) - fixed.keys())
    nodes = dict(fixed) | {index: number for number, index in enumerate(free, start=2)}
    endless = 2 * len(all_data(lite)) + 1
    edges = conversion_edges(lite, nodes, lambda tensor: (1, 1), endless=endless, first=2 + len(free))
    floating = minimum_cut(dict(edges)).floating
    return frozenset(index for index, node in nodes.items() if index >= 0 and node not in floating)


def operators_in_int8(lite: LiteGraph, plan: Plan, io: str) -> frozenset[int]:
    """Those of a plan, by index. Raises PlanError where it leaves an operator in float that there is not."""
    in_float, free = lite.layers.keys() - plan.int8.keys(), plan.float_operators or ()
    return assign_int8(lite, in_float, io, float_operators=free)


def operators_of(lite: LiteGraph, results: Collection[str]) -> Iterator[int]:
    """Indices of the operators that make results of these names. Raises PlanError where none does, or a layer."""
    layers = {index: layer for layer, index in lite.layers.items()}
    for name in sorted(results):
        index = lite.makers.get(lite.tensors.get(name, -1))
        if index is None:
            hint = did_you_mean(name, [lite.name_of(result) for result in lite.makers], otherwise="remove it")
            raise PlanError("float_operators", f"no operator of the .tflite makes '{name}'", hint=hint)
        if index in layers:
            raise PlanError("float_operators", f"'{name}' is the result of layer {layers[index]}", hint=IN_FLOAT)
        yield index


def conversions(lite: LiteGraph, int8: Collection[int], io: str) -> tuple[Conversion, ...]:
    """The conversions that it takes when the operators of these indices are INT8 and all others float.

    In the order of tensors. One more QUANTIZE, from INT8 to INT8, can be before an operator such as CONCATENATION,
    whose inputs must all have one scale; it is none of these.
    """
    ends = {INPUTS, OUTPUTS} if io == INT8_ENDS else set()
    inside = ends.union(int8)
    found = []
    for flow in flows(lite):
        name = lite.name_of(flow.tensor)
        if flow.maker in inside and not inside.issuperset(flow.readers):
            found.append(Conversion(name, "DEQUANTIZE"))
        elif flow.maker not in inside and not inside.isdisjoint(flow.readers):
            found.append(Conversion(name, "QUANTIZE"))
    return tuple(found)


def flows(lite: LiteGraph) -> Iterator[Flow]:
    """The tensors of data in order of index. Operators that ask for a shape alone are no readers."""
    graph = lite.subgraph
    outputs = {int(index) for index in graph.outputs}
    for tensor in sorted(all_data(lite)):
        readers = [r for r in lite.readers.get(tensor, ()) if not _reads_shape(lite, r)]
        if tensor in outputs:
            readers.append(OUTPUTS)
        yield Flow(tensor, lite.makers.get(tensor, INPUTS), tuple(dict.fromkeys(readers)))


@dataclass(frozen=True, slots=True)
class Cut:
    """A minimum cut: the sum of the capacities that are cut, and the fewest nodes that one can leave to the sink."""

    value: int
    floating: frozenset[int]


def conversion_edges(
    lite: LiteGraph, nodes: Mapping[int, int], costs: Callable[[str], tuple[Cost, Cost]], *, endless: Cost, first: int
) -> Iterator[tuple[tuple[int, int], Cost]]:
    """The edges that let a cut pay for conversions, as (from, to) and capacity.

    `nodes` are those of operators, INPUTS and OUTPUTS; further ones are numbered from `first` on. `costs` gives what a
    DEQUANTIZE and a QUANTIZE of a tensor cost, by its name. Each tensor has two nodes beside its maker m and its
    readers r: m -> d costs the first and d -> r is endless, so that a DEQUANTIZE is paid, once, where m is INT8 and
    any r is float; r -> q is endless and q -> m costs the second, which is the QUANTIZE.
    """
    numbers = count(first)
    for flow in flows(lite):
        maker, readers = nodes[flow.maker], {nodes[reader] for reader in flow.readers}
        if readers <= {maker}:
            continue
        to_float, to_int8 = next(numbers), next(numbers)
        dequantize, quantize = costs(lite.name_of(flow.tensor))
        yield (maker, to_float), dequantize
        yield (to_int8, maker), quantize
        yield from (((to_float, reader), endless) for reader in readers)
        yield from (((reader, to_int8), endless) for reader in readers)


def minimum_cut(capacities: Mapping[tuple[int, int], int]) -> Cut:
    """The minimum cut between INT8 and FLOAT (Ford and Fulkerson 1956) of a graph, by the capacities of its edges."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    if not capacities:
        return Cut(0, frozenset({FLOAT}))
    rows, columns = np.array(list(capacities), np.int32).T
    size = 1 + int(max(rows.max(), columns.max()))
    capacity = csr_matrix((np.array(list(capacities.values()), np.int32), (rows, columns)), (size, size))
    found = maximum_flow(capacity, INT8, FLOAT)
    residual = capacity - found.flow
    residual.eliminate_zeros()
    # What the sink can still be reached from.
    floating = breadth_first_order(residual.T.tocsr(), FLOAT, return_predecessors=False)
    return Cut(int(found.flow_value), frozenset(map(int, floating)))


def _reads_shape(lite: LiteGraph, index: int) -> bool:
    return lite.kind(index) in SHAPE_READERS


def _fixed(lite: LiteGraph, in_float: Collection[str], io: str) -> Mapping[int, int]:
    """Operators and ends about which there is no choice, with their side."""
    possible = quantizable(lite)
    end = INT8 if io == INT8_ENDS else FLOAT
    fixed = {INPUTS: end, OUTPUTS: end}
    fixed |= {index: FLOAT for index in range(len(lite.operators)) if index not in possible}
    return fixed | {
        index: FLOAT if name in in_float else INT8 for name, index in lite.layers.items() if index in possible
    }
