"""A layer, which is what is quantized together, and the survey of all layers of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from autoquant.errors import ModelError
from autoquant.model.model import Shape
from autoquant.model.operators import OPERATORS, OperatorKind, node_of


@dataclass(frozen=True, slots=True)
class Abilities:
    """What of a layer's settings a target can carry out.

    `per_channel`: its weight may have a scale for every channel. `balanceable`: factors can go from its input channels
    into its weight. `weight_bits`, `weight_algorithms` and `activation_bits` are what there is to choose from, the
    default first.
    `asymmetric`: its activations may have an offset. `powers_only`: all its scales must be powers of two. `profile`
    names the profile of a device by which some of this is not possible, `no_float_by` says what leaves no layer in
    float, '' where it may stay there.
    """

    per_channel: bool
    balanceable: bool
    weight_bits: tuple[int, ...] = (8,)
    weight_algorithms: tuple[str, ...] = ("minmax",)
    activation_bits: tuple[int, ...] = (8,)
    asymmetric: bool = True
    powers_only: bool = False
    no_float_by: str = ""
    profile: str = ""

    @property
    def in_float(self) -> bool:
        """Whether it may stay in float."""
        return not self.no_float_by


@dataclass(frozen=True, slots=True)
class Layer:
    """What is quantized together: an operator, or one input of an operator that is `tensor_only`.

    `name` is the operator's, of an input `<operator>:<index>`. `activations` are the tensors that it reads as data:
    one, or the two factors of a BatchMatMul without a weight. `data_axis` is the axis of the first of them that numbers
    input channels, 1 or -1. `weight` is the Const node of its weight, `channel_axes` the axes of that which number its
    output channels, `bias` the BiasAdd that alone reads the operator and has a constant vector. `macs` counts
    multiply-adds for one sample, of a pooling its additions. What depends on a shape that is not known is None.
    A convolution with several `groups` of input channels has a weight for each group. `abilities` are those on target
    tensorflow, where another does not say otherwise. `between` are tensors before the first activation, nearest first,
    that are rescaled with it when it is balanced.
    """

    name: str
    op: str
    activations: tuple[str, ...]
    data_axis: int
    weight: str | None
    weight_shape: tuple[int, ...]
    channel_axes: tuple[int, ...]
    bias: str | None
    output_shape: Shape | None
    macs: int | None
    groups: int = 1
    abilities: Abilities | None = None
    between: tuple[str, ...] = ()

    @property
    def rescaled(self) -> tuple[str, ...]:
        """The tensors whose channels are divided by factors when it is balanced; `data_axis` numbers them in all."""
        return (self.activations[0], *self.between)

    @property
    def can(self) -> Abilities:
        """What of its settings can be carried out."""
        if self.abilities is not None:
            return self.abilities
        if self.weight is None:
            return Abilities(self.operator.per_channel, balanceable=False)
        bits = (8, 7, 6) if self.op == "Conv2D" else (8,)
        # Factors of the balancer go into a weight of as many input channels.
        return Abilities(self.operator.per_channel, self.groups == 1, bits, ("minmax", "mse"))

    @property
    def node(self) -> str:
        """Name of the operator."""
        return node_of(self.name)

    @property
    def operator(self) -> OperatorKind:
        """How its operator is quantized."""
        return OPERATORS[self.op]

    @property
    def tensor_only(self) -> bool:
        """Whether it is only an input that is quantized, which is done where it is asked for and not else."""
        return self.operator.tensor_only

    @property
    def symmetric_only(self) -> bool:
        """Whether offsets must be 0: a product of two activations has no term that would take them up."""
        return len(self.activations) > 1

    @property
    def places(self) -> tuple[int, ...]:
        """Which inputs of its operator are its activations."""
        if self.tensor_only:
            return (int(self.name.rpartition(":")[2]),)
        return tuple(range(len(self.activations))) if self.symmetric_only else (self.operator.data,)

    @property
    def records(self) -> tuple[str, ...]:
        """What its activations are called in a record: its own name, then `<name>:1`."""
        return tuple(f"{self.name}:{index}" if index else self.name for index in range(len(self.activations)))

    @property
    def channels(self) -> int:
        """Output channels of the weight; 1 without one."""
        return prod(self.weight_shape[axis] for axis in self.channel_axes)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        weights = prod(self.weight_shape) if self.weight else 0
        return weights + (self.channels if self.bias is not None else 0)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An operator that looks quantizable but is not, and why.

    `macs` counts its multiply-adds for one sample, those of functions that it runs included; None where they depend on
    a shape that is not known. `parameters` are its weights that are constants.
    """

    name: str
    op: str
    reason: str
    macs: int | None = 0
    parameters: int = 0

    @property
    def computes(self) -> bool:
        """Whether it does some of the model's multiply-adds."""
        return self.macs != 0


@dataclass(frozen=True, slots=True)
class Survey:
    """The layers of a model, in graph order; `tensors` are inputs of operators, quantized only where asked for."""

    layers: tuple[Layer, ...]
    tensors: tuple[Layer, ...]
    rejected: tuple[Rejected, ...]

    @property
    def by_name(self) -> Mapping[str, Layer]:
        """Everything that a plan may name."""
        return MappingProxyType({layer.name: layer for layer in (*self.layers, *self.tensors)})


def no_layers(where: str, what: str, rejected: Sequence[Rejected], known: Iterable[str], *, again: str) -> ModelError:
    """The error for a model without any layer: it names those that look like one and are none, or what is `known`."""
    shown = "; ".join(f"'{one.name}' ({one.op}): {one.reason}" for one in rejected[:5])
    more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    listed = f"{shown}{more}" if rejected else f"it has no {', '.join(known)}"
    hint = f"change what the reasons name, and {again} again" if rejected else "is this the whole model?"
    return ModelError(where, f"{what}: {listed}", hint=hint)


def product(shape: Shape | None, factor: int) -> int | None:
    """The number of values of a tensor, times a factor; None where a size is not known."""
    return None if shape is None or None in shape else prod(size or 0 for size in shape) * factor
