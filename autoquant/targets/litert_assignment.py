"""Assigns INT8, INT16 or float to operators of a .tflite: to layers by the plan, to others by the fewest conversions.

Where activations have 16 bits, weights have 8.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.errors import IN_FLOAT, PlanError, did_you_mean
from autoquant.model.litert.graph import LiteGraph
from autoquant.targets.litert_operators import INT8_ENDS, SHAPE_READERS, all_data, data_of, quantizable, widenable

Cost = TypeVar("Cost", int, float)
INT8, FLOAT, WIDE = 0, 1, 1
"""The two sides of a cut: its source, and its sink, which is float or 16 bits."""
POWERS_NARROW = frozenset({"ADD", "SUB"})
"""Operators whose INT16 kernels want the scale of one input to be that of the result, where all are powers of two."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion of a tensor, by its name in the float model, from so many bits to others; 0 is float."""

    tensor: str
    source: int
    result: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor of data: its maker and its readers, each the index of an operator, INPUTS or OUTPUTS."""

    tensor: int
    maker: int
    readers: tuple[int, ...]


INPUTS, OUTPUTS = -1, -2


def assign_integers(
    lite: LiteGraph, in_float: Collection[str], io: str, *, float_operators: Collection[str] = ()
) -> frozenset[int]:
    """Indices of the operators that compute in integers.

    Layers do except those named `in_float`; operators that LiteRT Quantizer cannot make INT8 are float, and so
    are `float_operators`, by the names of their results. Inputs and outputs are of type `io`, float32 or int8. All
    other operators are such that there are the fewest conversions, one for each tensor whatever number of operators
    read it converted; among equals as few as possible are float.

    That is a minimum cut whose source is integers, and its sink float.
    """
    fixed = {**_fixed(lite, in_float, io), **dict.fromkeys(operators_of(lite, float_operators), FLOAT)}
    free = sorted(quantizable(lite) - fixed.keys())
    nodes = dict(fixed) | {index: number for number, index in enumerate(free, start=2)}
    endless = 2 * len(all_data(lite)) + 1
    edges = conversion_edges(lite, nodes, lambda tensor: (1, 1), endless=endless, first=2 + len(free))
    floating = minimum_cut(dict(edges)).floating
    return frozenset(index for index, node in nodes.items() if index >= 0 and node not in floating)


def integer_operators(lite: LiteGraph, plan: Plan, io: str) -> Mapping[int, int]:
    """The operators of a plan that compute in integers, by index, and the bits of their activations, 8 or 16.

    Raises PlanError where it leaves an operator in float that there is not.
    """
    in_float, free = lite.layers.keys() - plan.int8.keys(), plan.float_operators or ()
    operators = assign_integers(lite, in_float, io, float_operators=free)
    bits = {lite.layers[name]: settings.activation_bits for name, settings in plan.int8.items()}
    if set(bits.values()) == {8}:
        return dict.fromkeys(sorted(operators), 8)
    powers = any(settings.power_of_two for settings in plan.int8.values())
    wide = _widened(lite, operators, bits, io, without=POWERS_NARROW if powers else frozenset())
    return {index: 16 if index in wide else 8 for index in sorted(operators)}


def narrow_inputs(lite: LiteGraph, plan: Plan, io: str) -> frozenset[str]:
    """The layers with activations of 16 bits whose input has only 8, as an operator before them that is no layer has.

    So has the model's input of type int8.
    """
    layers = frozenset(lite.layers.values())
    wide = {name for name, settings in plan.int8.items() if settings.activation_bits == 16}
    operators = integer_operators(lite, plan, io) if wide else {}

    def is_narrow(tensor: int) -> bool:
        maker = lite.makers.get(tensor)
        return io == INT8_ENDS if maker is None else maker not in layers and operators.get(maker) == 8

    return frozenset(
        name for name in wide if any(map(is_narrow, data_of(lite, lite.operators[lite.layers[name]].inputs)))
    )


def _widened(
    lite: LiteGraph, operators: Collection[int], bits: Mapping[int, int], io: str, *, without: Collection[str]
) -> frozenset[int]:
    """Those of these operators whose activations have 16 bits: layers as `bits` say, others by the fewest conversions.

    Among equals as few as possible; none of the kinds that are to be `without`. A minimum cut whose source is 8 bits
    and its sink 16; what float makes is converted once for each number of bits.
    """
    possible = {index for index in widenable(lite) if lite.kind(index) not in without}
    fixed = {INPUTS: INT8, OUTPUTS: INT8} | {index: INT8 for index in operators if index not in possible}
    fixed |= {index: WIDE if own == 16 else INT8 for index, own in bits.items()}
    free = [index for index in sorted(operators) if index not in fixed]
    nodes = dict(fixed) | {index: number for number, index in enumerate(free, start=2)}
    endless = 2 * len(all_data(lite)) + 1
    edges = dict(_width_edges(lite, nodes, operators, io, endless=endless, first=2 + len(free)))
    wide = minimum_cut(edges).floating
    return frozenset(index for index, node in nodes.items() if index >= 0 and node in wide)


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


def conversions(lite: LiteGraph, operators: Mapping[int, int], io: str) -> tuple[Conversion, ...]:
    """The conversions that it takes when these operators compute in integers of so many bits, and all others in float.

    In the order of tensors; to float, to 8 bits, to 16. One more QUANTIZE, from INT8 to INT8, can be before an operator
    such as CONCATENATION, whose inputs must all have one scale; it is none of these.
    """
    bits = {**dict.fromkeys((INPUTS, OUTPUTS), 8 if io == INT8_ENDS else 0), **operators}
    found = []
    for flow in flows(lite):
        source, name = bits.get(flow.maker, 0), lite.name_of(flow.tensor)
        wanted = {bits.get(reader, 0) for reader in flow.readers} - {source}
        found += [Conversion(name, source, result) for result in sorted(wanted)]
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
    DEQUANTIZE and a QUANTIZE of a tensor cost, by its name.
    """
    numbers = count(first)
    for flow in flows(lite):
        maker, readers = nodes[flow.maker], {nodes[reader] for reader in flow.readers}
        yield from _tensor_edges(maker, readers, costs(lite.name_of(flow.tensor)), numbers, endless=endless)


def _width_edges(
    lite: LiteGraph, nodes: Mapping[int, int], integers: Collection[int], io: str, *, endless: int, first: int
) -> Iterator[tuple[tuple[int, int], int]]:
    """The edges that let a cut pay for conversions between 8 and 16 bits; float is on whatever side is cheaper."""
    inside = {*integers, *((INPUTS, OUTPUTS) if io == INT8_ENDS else ())}
    numbers = count(first)
    for flow in flows(lite):
        readers = {nodes[reader] for reader in flow.readers if reader in inside}
        maker = nodes[flow.maker] if flow.maker in inside else next(numbers)
        yield from _tensor_edges(maker, readers, (1, 1), numbers, endless=endless)


def _tensor_edges(
    maker: int, readers: Collection[int], costs: tuple[Cost, Cost], numbers: Iterator[int], *, endless: Cost
) -> Iterator[tuple[tuple[int, int], Cost]]:
    """Those of one tensor, which has two nodes beside its maker m and its readers r.

    m -> d has the first of the `costs` and d -> r is endless, so that a conversion to the sink's side is paid, once,
    where m is on the source's and any r is not; r -> q is endless and q -> m has the second, that of the other one.
    """
    if set(readers) <= {maker}:
        return
    to_sink, to_source = next(numbers), next(numbers)
    yield (maker, to_sink), costs[0]
    yield (to_source, maker), costs[1]
    yield from (((to_sink, reader), endless) for reader in readers)
    yield from (((reader, to_source), endless) for reader in readers)


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
