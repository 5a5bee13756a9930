"""The operators of a .tflite that are layers, where they have their data, weight and channels, and what can be INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoquant.array import Array
from autoquant.model.layer import Abilities

CLIPPED = ("minmax", "mse", "octav")


@dataclass(frozen=True, slots=True)
class Kind:
    """How an operator is quantized.

    `op` is TensorFlow's name for the same. `data`, `weight` and `bias` are indices of inputs. `output_axis` is the axis
    of the weight that numbers output channels, `input_axis` the one for input channels, which a depthwise convolution
    has on the same axis. `weight_algorithms` are those that LiteRT Quantizer has for the operator
    (litert_quantizer/algorithm_manager.py).
    """

    op: str
    data: int = 0
    weight: int | None = None
    bias: int | None = None
    output_axis: int = 0
    input_axis: int = -1
    per_channel: bool = True
    weight_algorithms: tuple[str, ...] = CLIPPED

    def abilities(self, *, balanceable: bool) -> Abilities:
        """What of a layer's settings it can carry out; the integer kernels know weights of 8 bits."""
        return Abilities(self.per_channel, balanceable, (8,), self.weight_algorithms, (8, 16))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        # Nothing of a pooling or a product of two activations is a weight.
        "AVERAGE_POOL_2D": Kind("AvgPool", per_channel=False, weight_algorithms=("minmax",)),
        "BATCH_MATMUL": Kind("BatchMatMulV2", weight=1, per_channel=False, weight_algorithms=("minmax", "octav")),
        "CONV_2D": Kind("Conv2D", weight=1, bias=2),  # (out, height, width, in)
        "DEPTHWISE_CONV_2D": Kind("DepthwiseConv2dNative", weight=1, bias=2, output_axis=3),  # (1, height, width, out)
        "FULLY_CONNECTED": Kind("MatMul", weight=1, bias=2),  # (out, in)
        # Its inputs are the shape of the result, the weight (out, height, width, in), the data and the bias.
        "TRANSPOSE_CONV": Kind("Conv2DBackpropInput", data=2, weight=1, bias=3),
    }
)
"""Operator -> how it is quantized: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
and, for the layouts, kernels/internal/reference of LiteRT."""
HOLDS_SUBGRAPHS = frozenset({"CALL", "CALL_ONCE", "IF", "STABLEHLO_COMPOSITE", "WHILE"})
"""Operators that run other subgraphs of the file."""
NO_KERNEL = "LiteRT has no INT8 kernel for it"
NOT_OFFERED = "LiteRT Quantizer does not make it INT8"
BODY = "operators inside its body stay in float"
RECURRENT = frozenset(
    {"BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "RNN", "SVDF"}
    | {"UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"}
)
"""Operators that are a whole recurrent layer."""
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("CONV_3D", "CONV_3D_TRANSPOSE"), NO_KERNEL)
    | dict.fromkeys(sorted(RECURRENT), NOT_OFFERED)
    | dict.fromkeys(HOLDS_SUBGRAPHS, BODY)
)
"""Operator -> why it is never quantized, for those that a reader of the table would look for."""


def output_axis(kind: str, op: Any) -> int:
    """The axis that numbers output channels in the weight of an operator (OperatorT) of this kind."""
    if kind == "BATCH_MATMUL":
        return -2 if op.builtinOptions.adjY else -1
    return KINDS[kind].output_axis if kind in KINDS else -1


def laid_out(weight: Array, kind: str, *, transposed: bool = False) -> Array:
    """A weight of TensorFlow in the layout of an operator (schema.fbs of LiteRT and its reference kernels).

    `transposed` says that a BATCH_MATMUL takes its second factor so.
    """
    if kind == "CONV_2D" and weight.ndim == 4:  # to (out, height, width, in); also a depthwise one of a single channel
        return weight.transpose(3, 0, 1, 2)
    if kind == "DEPTHWISE_CONV_2D" and weight.ndim == 4:  # to (1, height, width, out); also one of as many groups
        return weight.reshape(1, *weight.shape[:2], -1)
    if kind == "TRANSPOSE_CONV" and weight.ndim == 4:  # from (height, width, out, in) to (out, height, width, in)
        return weight.transpose(2, 0, 1, 3)
    if kind == "FULLY_CONNECTED":  # to (out, in)
        return weight.reshape(-1, weight.shape[-1]).T
    return weight.swapaxes(-1, -2) if transposed else weight
