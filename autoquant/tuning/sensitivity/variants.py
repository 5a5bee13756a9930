"""What a variant of a .tflite computes otherwise: an operator fake-quantized or a tensor rounded, and all behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from autoquant.errors import ModelError
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Affine


@dataclass(frozen=True, slots=True)
class RoundedTensor:
    """A tensor, by index, that is rounded to INT8 and back for whatever reads it."""

    tensor: int
    affine: Affine


Variant = FakeQuantized | RoundedTensor


@dataclass(frozen=True)
class Suffix:
    """The operators of a .tflite, by index and in order, that a variant reaches; its own operator is the first."""

    lite: LiteGraph
    operators: tuple[int, ...]
    tensor: int | None = None

    @classmethod
    def of(cls, lite: LiteGraph, variant: Variant) -> Suffix:
        """Find them."""
        if isinstance(variant, RoundedTensor):
            return cls(lite, tuple(_reached(lite, {variant.tensor}, after=-1)), variant.tensor)
        results = set(map(int, lite.operators[variant.operator].outputs))
        return cls(lite, (variant.operator, *_reached(lite, results, after=variant.operator)))

    @cached_property
    def inputs(self) -> frozenset[int]:
        """The tensors that they read, and that which is rounded."""
        own = () if self.tensor is None else (self.tensor,)
        return frozenset((*own, *(int(t) for index in self.operators for t in self.lite.operators[index].inputs)))

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


def _reached(lite: LiteGraph, tensors: Collection[int], *, after: int) -> Iterator[int]:
    """The operators behind one of this index that any of the tensors reaches."""
    reached = set(tensors)
    for index in range(after + 1, len(lite.operators)):
        if not reached.isdisjoint(map(int, lite.operators[index].inputs)):
            yield index
            reached |= set(map(int, lite.operators[index].outputs))


def add_variant(builder: LiteBuilder, variant: Variant) -> Mapping[int, int]:
    """Add the operators of a variant; gives for each tensor that they make again, the one that they made.

    Raises ModelError where one of them cannot be doubled.
    """
    lite, suffix, own = builder.lite, Suffix.of(builder.lite, variant), dict[int, int]()
    if any(builder.tensor(tensor).isVariable for tensor in suffix.inputs if tensor >= 0):
        name = lite.name_of(variant.tensor) if isinstance(variant, RoundedTensor) else variant.layer
        raise ModelError(name, "an operator behind it keeps a state", hint="it cannot be measured alone")
    if isinstance(variant, RoundedTensor):
        own[variant.tensor] = builder.quantize_dequantize(
            variant.tensor, variant.affine.scale, variant.affine.offset, bits=variant.affine.bits, at=suffix.ready
        )
    for index in suffix.operators:
        op = builder.copied(index, own)
        if isinstance(variant, FakeQuantized) and index == variant.operator:
            fake_quantize(builder, op, variant, at=suffix.ready)
        own |= {tensor: builder.like(tensor) for tensor in op.outputs}
        op.outputs = [own[tensor] for tensor in op.outputs]
        builder.place(op, at=suffix.ready)
    return own


def rounded_together(lite: LiteGraph, variants: Iterable[RoundedTensor]) -> bytes:
    """The .tflite in which each of these tensors is rounded for whatever reads it, or is an output."""
    builder, now = LiteBuilder(lite), dict[int, int]()
    wanted = {variant.tensor: variant.affine for variant in variants}

    def round_(tensor: int, at: int) -> None:
        if tensor in wanted:
            affine = wanted[tensor]
            now[tensor] = builder.quantize_dequantize(tensor, affine.scale, affine.offset, bits=affine.bits, at=at)

    for tensor in map(int, lite.subgraph.inputs):
        round_(tensor, 0)
    for index, op in enumerate(lite.operators):
        if not now.keys().isdisjoint(map(int, op.inputs)):
            own = builder.operator(index)
            own.inputs = [now.get(int(tensor), int(tensor)) for tensor in own.inputs]
        for tensor in map(int, op.outputs):
            round_(tensor, index + 1)
    outputs = zip(lite.outputs, map(int, lite.subgraph.outputs), strict=True)
    return builder.write({name: now.get(tensor, tensor) for name, tensor in outputs})
