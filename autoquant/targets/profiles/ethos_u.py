"""Arm Ethos-U: what Vela, the compiler of these devices, says that it places on them."""

from __future__ import annotations

from autoquant.targets.profiles.limits import Flat, GatherAxis, OneMultiplier, OneSample, Rank, Size
from autoquant.targets.profiles.profile import Profile, Source, operators_named
from autoquant.targets.profiles.windows import SAME, VALID, EqualStride, Kernel, Stride

_VELA_5 = Source(
    "SUPPORTED_OPS.md, as `vela --supported-ops-report` writes it",
    "Vela 5.2.0",
    "https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela",
)
_VELA_3 = Source(
    "SUPPORTED_OPS.md of Vela", "Vela 3.10.0", "https://github.com/nxp-imx/ethos-u-vela/blob/8cb3c36/SUPPORTED_OPS.md"
)
_COMPARED = "against Vela 5.2.0, its compiler, on small networks of each kind of layer; on no device"
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_CONVOLUTIONS = _WEIGHTED - {"FULLY_CONNECTED"}
_AVERAGE, _MAX = frozenset({"AVERAGE_POOL_2D"}), frozenset({"MAX_POOL_2D"})
_POOLINGS = (
    Kernel(_AVERAGE, height=8, width=8, padding=SAME),
    Kernel(_AVERAGE, height=256, area=65536, padding=VALID),
    Kernel(_MAX, height=256, area=65536),
)
_OPEN = (
    "limits on the sizes of SOFTMAX, MEAN, TRANSPOSE, ARG_MAX and of resized images are not checked",
    "that absolute weights of a channel must sum to 8,323,072 steps at most is not checked",
)
_U55 = operators_named(
    "ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D ELU EXP EXPAND_DIMS "
    "FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK "
    "PAD PADV2 PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SLICE SOFTMAX SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB "
    "SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
)
_U85 = _U55 | operators_named(
    "ASSIGN_VARIABLE CAST DIV EQUAL GATHER GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_NOT LOGICAL_OR "
    "NOT_EQUAL READ_VARIABLE REDUCE_ALL REDUCE_ANY SCATTER_ND SELECT SELECT_V2"
)
_BEFORE = operators_named(
    "ABS ADD ARG_MAX AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXP EXPAND_DIMS FULLY_CONNECTED "
    "HARD_SWISH LEAKY_RELU LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE RELU RELU6 "
    "RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SHAPE SLICE SOFTMAX SPLIT SPLIT_V "
    "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM "
    "UNPACK"
)

ETHOS_U55 = Profile(
    name="ethos-u55",
    device="Arm Ethos-U55 and Ethos-U65, compiled by Vela 5.2",
    sources=(_VELA_5,),
    operators=_U55,
    per_channel=_WEIGHTED,
    int16=_U55 - {"BATCH_MATMUL", "GELU"},
    limits=(
        *_POOLINGS,
        Stride(3, frozenset({"CONV_2D"}) | _AVERAGE | _MAX, or_plain=True),
        Stride(3, frozenset({"DEPTHWISE_CONV_2D"})),
        EqualStride(((1, 1), (2, 2)), frozenset({"TRANSPOSE_CONV"})),
    ),
    not_known=(
        *_OPEN,
        "TRANSPOSE_CONV with strides of 2x1 or 1x2, which one row or column allows, is refused all the same",
    ),
    checked=_COMPARED,
)
ETHOS_U85 = Profile(
    name="ethos-u85",
    device="Arm Ethos-U85, compiled by Vela 5.2",
    sources=(_VELA_5,),
    operators=_U85,
    per_channel=_WEIGHTED,
    int16=_U85 - {"GELU"},
    limits=(*_POOLINGS, GatherAxis()),
    checked=_COMPARED,
    not_known=_OPEN,
)
ETHOS_U_VELA_3 = Profile(
    name="ethos-u-vela3",
    device="Arm Ethos-U55 and Ethos-U65, compiled by Vela 3.10",
    sources=(_VELA_3,),
    operators=_BEFORE,
    per_channel=_CONVOLUTIONS,
    int16=None,
    fixed_sizes=True,
    limits=(
        Rank(4),
        Size(65535),
        OneSample(
            operators_named("FULLY_CONNECTED RESHAPE SHAPE SLICE SOFTMAX SPLIT SPLIT_V SQUEEZE STRIDED_SLICE UNPACK")
        ),
        Flat(frozenset({"FULLY_CONNECTED"})),
        *_POOLINGS,
        Kernel(_CONVOLUTIONS, height=64, area=4096),
        Stride(3, frozenset({"DEPTHWISE_CONV_2D"}) | _MAX),
        EqualStride(((1, 1), (2, 2)), frozenset({"TRANSPOSE_CONV"})),
        OneMultiplier(),
    ),
    not_known=(
        *_OPEN,
        "strides of CONV_2D and AVERAGE_POOL_2D, which depend on the width of the image beyond 3, are not checked",
        "which constants and permutations STRIDED_SLICE, PAD and TRANSPOSE may have is not checked",
        "which inputs ADD, MUL and the like broadcast is not checked",
    ),
)
