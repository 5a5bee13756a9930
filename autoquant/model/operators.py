"""The operators that AMCT quantizes, where each has its data, weight and channels, and how their tensors are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


def node_of(tensor: str) -> str:
    """The node that makes a tensor, from any spelling: 'a', 'a:1' and '^a' give 'a'."""
    return tensor.removeprefix("^").split(":", 1)[0]


def canonical(tensor: str) -> str:
    """The one spelling used here: 'a:0' becomes 'a'; 'a:1' stays."""
    return tensor.removesuffix(":0")


def is_tensor(name: str) -> bool:
    """Whether a name is that of an operator's input, `<operator>:<index>`, and not of a layer."""
    return ":" in name


def prefix_of(names: Iterable[str], nodes: Collection[str]) -> str:
    """The prefix under which a graph of these nodes was imported, where tensors or operators are named after that.

    It ends with "/"; empty where any of the names is one of the nodes as it is, or nothing is found.

    >>> prefix_of(["import/conv", "import/add:0"], {"conv", "add"})
    'import/'
    """
    found = [node_of(name) for name in names]
    if not found or any(name in nodes for name in found):
        return ""
    scopes = found[0].split("/")[:-1]
    prefixes = ("/".join(scopes[:length]) + "/" for length in range(1, len(scopes) + 1))
    shared = (prefix for prefix in prefixes if all(name.startswith(prefix) for name in found))
    return next((prefix for prefix in shared if any(name.removeprefix(prefix) in nodes for name in found)), "")


@dataclass(frozen=True, slots=True)
class OperatorKind:
    """How an operator is quantized.

    `data` and `weight` are indices of its inputs; `channel_axes` the axes of the weight that number output channels,
    `input_axis` the one that numbers input channels; `rank` is that of its result, None where it can be any.
    `per_channel` says whether the weight may have a scale for every channel. Of an operator that is `tensor_only` no
    work becomes INT8: its input is quantized and dequantized, which its reader may join with its own.
    """

    rank: int | None
    data: int = 0
    weight: int | None = None
    channel_axes: tuple[int, ...] = ()
    input_axis: int = 0
    per_channel: bool = False
    tensor_only: bool = False


BATCHED = OperatorKind(None, weight=1, channel_axes=(1,), input_axis=0)
OPERATORS: Mapping[str, OperatorKind] = MappingProxyType(
    {
        "Add": OperatorKind(None, tensor_only=True),
        "AddV2": OperatorKind(None, tensor_only=True),
        "AvgPool": OperatorKind(4),
        "BatchMatMul": BATCHED,
        "BatchMatMulV2": BATCHED,
        "Conv2D": OperatorKind(4, weight=1, channel_axes=(3,), input_axis=2, per_channel=True),
        # Its inputs are the shape of the result, the weight (height, width, out, in) and the data.
        "Conv2DBackpropInput": OperatorKind(4, data=2, weight=1, channel_axes=(2,), input_axis=3, per_channel=True),
        "Conv3D": OperatorKind(5, weight=1, channel_axes=(4,), input_axis=3),
        "DepthwiseConv2dNative": OperatorKind(4, weight=1, channel_axes=(2, 3), input_axis=2, per_channel=True),
        "MatMul": OperatorKind(2, weight=1, channel_axes=(1,), input_axis=0),
        "MaxPool": OperatorKind(4, tensor_only=True),
    }
)
"""Operator -> how it is quantized. A BatchMatMul has a weight only where its second factor is a constant matrix."""
