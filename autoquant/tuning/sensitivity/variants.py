"""One layer of a .tflite, quantized in one way, and all that is behind it: added to the file beside the float model.

    data -> [MUL] -> QUANTIZE -> DEQUANTIZE -> operator(weight as INT8 has it, in real units) -> copies of all behind it

What is before the layer is computed once, for the float model and for all variants in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import Array
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.operators import AddedOperators, hold_int8
from autoquant.quantization.affine import Affine

FLOAT = "float"
"""The outputs of the float model are called `float/<output>`, those of a variant `<number>/<output>`."""


@dataclass(frozen=True)
class Variant:
    """A layer's operator, by its index, and what becomes of its inputs.

    `data` are the places of its inputs that are quantized, as `affines` say. Before that, the last axis of the data is
    multiplied by `factors`. `weight` is the place of the weight, and what makes it, in the layout of the file.
    """

    layer: str
    operator: int
    data: tuple[int, ...]
    affines: tuple[Affine, ...]
    weight: tuple[int, Callable[[], Array]] | None = None
    factors: Array | None = None


@dataclass(frozen=True)
class Suffix:
    """The operators of a .tflite, by index and in order, that an operator's result reaches, itself first."""

    lite: LiteGraph
    operator: int

    @cached_property
    def operators(self) -> tuple[int, ...]:
        """Their indices."""
        every = self.lite.subgraph.operators
        reached = set(map(int, every[self.operator].outputs))
        found = [self.operator]
        for index in range(self.operator + 1, len(every)):
            if not reached.isdisjoint(map(int, every[index].inputs)):
                found.append(index)
                reached |= set(map(int, every[index].outputs))
        return tuple(found)

    @property
    def inputs(self) -> frozenset[int]:
        """The tensors that they read."""
        return frozenset(int(t) for index in self.operators for t in self.lite.subgraph.operators[index].inputs)

    @property
    def size(self) -> int:
        """Bytes of the constants that they read, of which kernels keep copies of their own."""
        tensors, buffers = self.lite.subgraph.tensors, self.lite.model.buffers
        data = (buffers[tensors[tensor].buffer].data for tensor in self.inputs if tensor >= 0)
        return sum(len(one) for one in data if one is not None)

    @property
    def ready(self) -> int:
        """How many operators of the file come first, so that all is there that these do not make themselves."""
        own = set(self.operators)
        makers = (self.lite.makers.get(tensor, -1) for tensor in self.inputs)
        return max((maker + 1 for maker in makers if maker not in own), default=0)


@dataclass(frozen=True, slots=True)
class Doubled:
    """A .tflite of the float model and its variants, and what its outputs are called."""

    content: bytes
    outputs: tuple[str, ...]


def with_variants(lite: LiteGraph, variants: Sequence[Variant], outputs: Sequence[str]) -> Doubled:
    """The .tflite with these outputs of its own, and each again for each variant.

    Outputs that a variant does not reach are left out. Raises ModelError where a layer cannot be doubled.
    """
    file = _File(lite)
    indices = dict(zip(lite.outputs, map(int, lite.subgraph.outputs), strict=True))
    names = {f"{FLOAT}/{name}": indices[name] for name in outputs}
    for number, variant in enumerate(variants):
        made = file.add(variant, number)
        names |= {f"{number}/{name}": made[indices[name]] for name in outputs if indices[name] in made}
    return Doubled(file.content(names), tuple(names))


class _File:
    """A copy of a .tflite that shares all with it, and to which operators are added."""

    def __init__(self, lite: LiteGraph) -> None:
        self._lite = lite
        self._model: Any = copy(lite.model)
        self._graph: Any = copy(lite.subgraph)
        self._model.subgraphs = [self._graph, *lite.model.subgraphs[1:]]
        self._model.operatorCodes = list(lite.model.operatorCodes)
        self._model.buffers = list(lite.model.buffers)
        self._graph.tensors = list(lite.subgraph.tensors)
        self._added: dict[int, list[Any]] = {}
        self._new = AddedOperators(self._model)

    def add(self, variant: Variant, number: int) -> dict[int, int]:
        """Add the operators of a variant; gives for each tensor that they make again, the one that they made."""
        suffix = Suffix(self._lite, variant.operator)
        if any(self._graph.tensors[tensor].isVariable for tensor in suffix.inputs if tensor >= 0):
            raise ModelError(variant.layer, "an operator behind it keeps a state", hint="it cannot be measured alone")
        prefix = f"{variant.layer}/{number}"
        ops = list(self._quantized(variant, prefix))
        made: dict[int, int] = {}
        for index in suffix.operators:
            op = ops.pop() if index == variant.operator else copy(self._lite.subgraph.operators[index])
            op.inputs = [made.get(int(tensor), int(tensor)) for tensor in op.inputs]
            for tensor in map(int, op.outputs):
                made[tensor] = self._like(tensor, f"{prefix}/{tensor}")
            op.outputs = [made[int(tensor)] for tensor in op.outputs]
            ops.append(op)
        self._added.setdefault(suffix.ready, []).extend(ops)
        return made

    def content(self, outputs: dict[str, int]) -> bytes:
        """The bytes of the file."""
        originals = self._lite.subgraph.operators
        self._graph.operators = [
            op
            for index in range(len(originals) + 1)
            for op in (*self._added.get(index, ()), *originals[index : index + 1])
        ]
        self._graph.outputs = list(outputs.values())
        flatbuffer.add_signature(self._model, self._lite.inputs, list(outputs))
        return flatbuffer.write(self._model)

    def _quantized(self, variant: Variant, prefix: str) -> Iterator[Any]:
        """The operators that quantize the data, and the layer's own, which reads what they make."""
        op = copy(self._lite.subgraph.operators[variant.operator])
        op.inputs = [int(tensor) for tensor in op.inputs]
        for place, affine in zip(variant.data, variant.affines, strict=True):
            tensor, name = op.inputs[place], f"{prefix}/data{place}"
            if variant.factors is not None:
                factors = self._constant(f"{name}/factors", self._fitting(variant, tensor, variant.factors))
                balanced = self._like(tensor, f"{name}/balanced")
                yield self._new.made(schema.BuiltinOperator.MUL, [tensor, factors], balanced)
                tensor = balanced
            steps, op.inputs[place] = self._like(tensor, f"{name}/steps"), self._like(tensor, f"{name}/real")
            hold_int8(self._graph.tensors[steps], scale=affine.scale, zero=affine.offset)
            yield self._new.made(schema.BuiltinOperator.QUANTIZE, [tensor], steps)
            yield self._new.made(schema.BuiltinOperator.DEQUANTIZE, [steps], op.inputs[place])
        if variant.weight is not None:
            place, make = variant.weight
            op.inputs[place] = self._constant(f"{prefix}/weight", make())
        yield op

    def _fitting(self, variant: Variant, tensor: int, factors: Array) -> Array:
        channels = flatbuffer.shape_of(self._graph.tensors[tensor])[-1:]
        if channels != factors.shape:
            what = f"its data has {channels} channels in LiteRT, for {factors.shape} factors"
            raise ModelError(variant.layer, what, hint="remove dmq_balancer_param")
        return factors

    def _like(self, tensor: int, name: str) -> int:
        """A tensor of the same shape and type, of no constant."""
        made = copy(self._graph.tensors[tensor])
        made.name, made.buffer = name.encode(), 0
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def _constant(self, name: str, value: Array) -> int:
        return flatbuffer.add_constant(self._model, self._graph, name, np.ascontiguousarray(value, np.float32))
