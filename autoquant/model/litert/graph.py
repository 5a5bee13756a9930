"""A float model as the content of a .tflite file, with the layers of the TensorFlow model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from autoquant.array import Array
from autoquant.model.litert import flatbuffer
from autoquant.model.model import OutputSpec, Shape


@dataclass(frozen=True, eq=False)
class LiteGraph:
    """A float .tflite in memory: one signature, tensors of distinct names, the batch open where the model allows it.

    All but the first subgraph are run by operators of others, as the body of a loop is.
    `inputs` and `outputs` are the names in the signature, in the order of the subgraph's inputs and outputs. `layers`
    gives, for each layer's name, the index of its operator, of a kind in `kinds.KINDS` or one that cannot be INT8;
    `missing` says why a layer of the TensorFlow model has none of its own, and `ops` what layers, found or missing, are
    called in TensorFlow where that is not the name of the kind. `float_only` says of operators, by index, why they must
    stay in float though they could be INT8; `int8_only` are those that must not have activations of 16 bits.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: Mapping[str, int]
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ops: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    float_only: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    int8_only: frozenset[int] = frozenset()

    @cached_property
    def model(self) -> Any:
        """The objects (ModelT) of the content, which nobody may change: `flatbuffer.read` gives others."""
        return flatbuffer.read(self.content)

    @property
    def subgraph(self) -> Any:
        """The subgraph (SubGraphT), likewise."""
        return self.model.subgraphs[0]

    @property
    def operators(self) -> Any:
        """The operators (OperatorT) of the subgraph, in the order in which they run."""
        return self.subgraph.operators

    @cached_property
    def tensors(self) -> Mapping[str, int]:
        """Index of each tensor by name."""
        return MappingProxyType({self.name_of(index): index for index in range(len(self.subgraph.tensors))})

    def operator(self, layer: str) -> tuple[str, int, str]:
        """What a layer is in the file: kind of operator, its index, and the name of its result."""
        index = self.layers[layer]
        return self.kind(index), index, self.name_of(self.operators[index].outputs[0])

    def kind(self, operator: int) -> str:
        """The kind of an operator, such as CONV_2D."""
        return flatbuffer.op_name(self.model, self.operators[operator])

    def name_of(self, tensor: int) -> str:
        """The name of a tensor."""
        return flatbuffer.tensor_name(self.subgraph.tensors[tensor])

    def shape_of(self, tensor: int) -> Shape:
        """The shape that the file states for a tensor."""
        return flatbuffer.shape_of(self.subgraph.tensors[tensor])

    def output_specs(self) -> tuple[OutputSpec, ...]:
        """What the outputs give."""
        found = zip(self.outputs, (self.subgraph.tensors[index] for index in self.subgraph.outputs), strict=True)
        kinds = ((name, flatbuffer.type_name(one).lower(), flatbuffer.shape_of(one)) for name, one in found)
        return tuple(OutputSpec(*one) for one in kinds)

    def channels_of(self, tensor: int) -> int | None:
        """The last size of a tensor; None where that is open or the tensor is a number."""
        shape = self.shape_of(tensor)
        return shape[-1] if shape else None

    def value_of(self, tensor: int) -> Array | None:
        """The value of a tensor that is a constant, or None."""
        return flatbuffer.value_of(self.model, self.subgraph.tensors[tensor])

    @cached_property
    def makers(self) -> Mapping[int, int]:
        """For each tensor that an operator makes the operator's index."""
        operators = enumerate(self.operators)
        return MappingProxyType({int(tensor): index for index, op in operators for tensor in op.outputs})

    @cached_property
    def readers(self) -> Mapping[int, tuple[int, ...]]:
        """For each tensor that operators read their indices; one that reads it twice appears twice."""
        found: dict[int, tuple[int, ...]] = {}
        for index, op in enumerate(self.operators):
            for tensor in op.inputs:
                found[int(tensor)] = (*found.get(int(tensor), ()), index)
        return MappingProxyType(found)

    def constant(self, tensor: str) -> Array | None:
        """The value of a tensor that is a constant, or None."""
        index = self.tensors.get(tensor)
        return None if index is None else self.value_of(index)
