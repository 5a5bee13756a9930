"""The fewest conversions, against all assignments of small graphs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.targets.litert_assignment import (
    Conversion,
    assign_integers,
    conversions,
    integer_operators,
    narrow_inputs,
)

LAYER, FREE, UNABLE, SHAPE = "AVERAGE_POOL_2D", "CONCATENATION", "FLOOR", "SHAPE"
"""A layer, an operator about which there is a choice, one without integer kernels, one that reads a shape."""
ENDS = {"QUANTIZE": (0, 8), "DEQUANTIZE": (8, 0)}
NARROW = "SPACE_TO_DEPTH"
"""An operator about which there is a choice, but 16 bits."""


def graph(operators: Sequence[tuple[str, Sequence[int]]], outputs: Sequence[int]) -> LiteGraph:
    """Operator n makes tensor n + 1 from others; tensor 0 is the input."""
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    model.buffers, model.operatorCodes, model.signatureDefs = [schema.BufferT()], [], []
    subgraph.tensors, subgraph.operators = [tensor("t0")], []
    for number, (kind, inputs) in enumerate(operators, start=1):
        code, op = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        op.opcodeIndex, op.inputs, op.outputs = number - 1, list(inputs), [number]
        model.operatorCodes.append(code)
        subgraph.operators.append(op)
        subgraph.tensors.append(tensor(f"t{number}", whole=kind == SHAPE))
    subgraph.inputs, subgraph.outputs = [0], list(outputs)
    model.subgraphs, model.version = [subgraph], 3
    layers = {f"l{n}": n for n, (kind, _) in enumerate(operators) if kind == LAYER}
    return LiteGraph(flatbuffer.write(model), ("t0",), tuple(f"t{n}" for n in outputs), layers)


def tensor(name: str, *, whole: bool = False) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.buffer = name.encode(), [1], 0
    made.type = schema.TensorType.INT32 if whole else schema.TensorType.FLOAT32
    return made


def counted_conversions(operators: Any, outputs: Any, int8: Mapping[int, bool], ends: bool) -> int:
    """Counted as in the sentence: one for each tensor whose maker and any of whose readers differ."""
    total = 0
    for made in range(len(operators) + 1):
        if made and operators[made - 1][0] == SHAPE:
            continue
        maker = int8[made - 1] if made else ends
        readers = [int8[n] for n, (kind, inputs) in enumerate(operators) if made in inputs and kind != SHAPE]
        readers += [ends] if made in outputs else []
        total += any(reader != maker for reader in readers)
    return total


@st.composite
def networks(draw: Callable[..., Any]) -> tuple[Any, ...]:
    operators: list[tuple[str, list[int]]] = []
    for number in range(draw(st.integers(1, 8))):
        data = [0, *(n + 1 for n in range(number) if operators[n][0] != SHAPE)]
        kind = draw(st.sampled_from([LAYER, FREE, FREE, FREE, UNABLE, SHAPE]))
        many = 3 if kind == FREE else 1
        operators.append((kind, draw(st.lists(st.sampled_from(data), min_size=1, max_size=many))))
    data = [0, *(n + 1 for n, (kind, _) in enumerate(operators) if kind != SHAPE)]
    outputs = draw(st.lists(st.sampled_from(data), min_size=1, max_size=2, unique=True))
    in_float = draw(
        st.sets(st.sampled_from([f"l{n}" for n, (kind, _) in enumerate(operators) if kind == LAYER] or ["-"]))
    )
    made = [f"t{n + 1}" for n, (kind, _) in enumerate(operators) if kind == FREE]
    float_operators = draw(st.sets(st.sampled_from(made))) if made else set()
    return operators, outputs, in_float, draw(st.booleans()), float_operators


@given(networks())
def test_there_are_the_fewest_conversions_and_among_equals_the_most_in_int8(case: tuple[Any, ...]) -> None:
    operators, outputs, in_float, ends, float_operators = case
    lite = graph(operators, outputs)
    fixed = {n: kind == LAYER and f"l{n}" not in in_float for n, (kind, _) in enumerate(operators) if kind != FREE}
    fixed |= {int(name[1:]) - 1: False for name in float_operators}
    free = [n for n, (kind, _) in enumerate(operators) if kind == FREE and n not in fixed]
    tried = [
        fixed | dict(zip(free, sides, strict=True)) for sides in itertools.product([False, True], repeat=len(free))
    ]
    costs = [counted_conversions(operators, outputs, one, ends) for one in tried]
    best = [one for one, cost in zip(tried, costs, strict=True) if cost == min(costs)]
    found = assign_integers(lite, in_float, "int8" if ends else "float32", float_operators=float_operators)
    assert found == {n for one in best for n, int8 in one.items() if int8}, "all that is INT8 in any of the best"
    assert len(conversions(lite, dict.fromkeys(found, 8), "int8" if ends else "float32")) == min(costs)


@st.composite
def wide_networks(draw: Callable[..., Any]) -> tuple[Any, ...]:
    operators: list[tuple[str, list[int]]] = [(LAYER, [0])]
    for number in range(1, draw(st.integers(2, 7))):
        kind = draw(st.sampled_from([LAYER, LAYER, FREE, FREE, UNABLE, NARROW]))
        inputs = st.lists(st.integers(0, number), min_size=1, max_size=3 if kind == FREE else 1)
        operators.append((kind, draw(inputs)))
    outputs = draw(st.lists(st.integers(0, len(operators)), min_size=1, max_size=2, unique=True))
    layers = [f"l{n}" for n, (kind, _) in enumerate(operators) if kind == LAYER]
    bits = draw(st.fixed_dictionaries({name: st.sampled_from([0, 8, 16]) for name in layers}))
    return operators, outputs, bits | {"l0": bits["l0"] or 16}, draw(st.booleans())


@given(wide_networks())
def test_there_are_the_fewest_conversions_between_8_and_16_bits_and_among_equals_the_fewest_of_16(
    case: tuple[Any, ...],
) -> None:
    """Of all ways to have these operators in integers."""
    operators, outputs, bits, ends = case
    lite, io = graph(operators, outputs), "int8" if ends else "float32"
    layers = {name: LayerPlan(activation_bits=own) if own else None for name, own in bits.items()}
    found = integer_operators(lite, Plan(layers), io)
    in_float = [name for name, own in bits.items() if not own]
    assert list(found) == sorted(assign_integers(lite, in_float, io))
    known = {n: bits[f"l{n}"] if operators[n][0] == LAYER else 8 for n in found if operators[n][0] != FREE}
    free = [n for n in found if n not in known]
    tried = [known | dict(zip(free, own, strict=True)) for own in itertools.product([8, 16], repeat=len(free))]
    costs = [conversions_between(operators, outputs, one, ends) for one in tried]
    best = [one for one, cost in zip(tried, costs, strict=True) if cost == min(costs)]
    assert {n for n, own in found.items() if own == 16} == set.intersection(
        *({n for n, own in one.items() if own == 16} for one in best)
    )
    assert len(conversions(lite, found, io)) == conversions_between(operators, outputs, found, ends)


def conversions_between(operators: Any, outputs: Any, bits: Mapping[int, int], ends: bool) -> int:
    """One for each tensor and each number of bits, 0 for float, that any reader has and its maker has not."""
    total = 0
    for made in range(len(operators) + 1):
        end = 8 if ends else 0
        readers = {bits.get(n, 0) for n, (_, inputs) in enumerate(operators) if made in inputs}
        readers |= {end} if made in outputs else set()
        total += len(readers - {bits.get(made - 1, 0) if made else end})
    return total


@pytest.mark.parametrize(
    ("operators", "outputs", "in_float", "int8", "kinds"),
    [
        # a layer alone
        ([(LAYER, [0])], [1], (), {0}, ["t0 QUANTIZE", "t1 DEQUANTIZE"]),
        # one DEQUANTIZE for two float readers and the output
        ([(LAYER, [0]), (UNABLE, [1]), (UNABLE, [1])], [1, 2, 3], (), {0}, ["t0 QUANTIZE", "t1 DEQUANTIZE"]),
        # who asks for a shape converts nothing
        ([(LAYER, [0]), (SHAPE, [1]), (LAYER, [1])], [3], (), {0, 2}, ["t0 QUANTIZE", "t3 DEQUANTIZE"]),
        # float as long as nothing is gained
        ([(FREE, [0]), (UNABLE, [1]), (LAYER, [0])], [2], (), {2}, ["t0 QUANTIZE"]),
        # between an INT8 layer and a float one it costs the same either way
        ([(LAYER, [0]), (FREE, [1]), (LAYER, [2])], [3], ("l2",), {0, 1}, ["t0 QUANTIZE", "t2 DEQUANTIZE"]),
    ],
    ids=["layer", "hyperedge", "shape", "float", "tie"],
)
def test_small_graphs_by_hand(
    operators: list[tuple[str, list[int]]],
    outputs: list[int],
    in_float: tuple[str, ...],
    int8: set[int],
    kinds: list[str],
) -> None:
    lite = graph(operators, outputs)
    assert assign_integers(lite, in_float, "float32") == int8
    wanted = tuple(Conversion(name, *ENDS[kind]) for name, kind in map(str.split, kinds))
    assert conversions(lite, dict.fromkeys(int8, 8), "float32") == wanted


def test_a_weight_that_is_no_layer_s_stays_in_float() -> None:
    lite = graph([(LAYER, [0]), ("CONV_2D", [1]), (FREE, [2])], [3])
    assert assign_integers(lite, (), "float32") == {0}


def test_behind_an_operator_without_16_bits_a_layer_reads_8() -> None:
    lite = graph([(LAYER, [0]), (NARROW, [1]), (LAYER, [2]), (FREE, [3]), (LAYER, [4])], [5])
    plan = Plan({name: LayerPlan(activation_bits=16) for name in lite.layers})
    assert narrow_inputs(lite, plan, "float32") == {"l2"}
    assert narrow_inputs(lite, plan, "int8") == {"l0", "l2"}
    assert not narrow_inputs(lite, Plan(dict.fromkeys(lite.layers, LayerPlan())), "int8")
