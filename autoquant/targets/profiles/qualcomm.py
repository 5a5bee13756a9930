"""Qualcomm Hexagon: the DSP by the delegate of TensorFlow Lite, and its HTP by the compiler plugin of LiteRT."""

from __future__ import annotations

from autoquant.targets.profiles.limits import Flat, Inputs, NoActivation, OneMultiplier, Rank, ResizedTo
from autoquant.targets.profiles.profile import Float, Profile, Source, operators_named
from autoquant.targets.profiles.windows import Dilation, Stride

_TENSORFLOW = "https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/"

HEXAGON_DSP = Profile(
    name="hexagon-dsp",
    device="Qualcomm Hexagon 680 to 690 (Snapdragon 820 to 855), by TensorFlow Lite's Hexagon delegate",
    sources=(
        Source(
            "TensorFlow Lite Hexagon delegate", "commit aef484b", f"{_TENSORFLOW}g3doc/android/delegates/hexagon.md"
        ),
        Source("Hexagon Delegate, supported ops", "commit 0406598", f"{_TENSORFLOW}delegates/hexagon/README.md"),
        Source("IsNodeSupportedByHexagon", "commit 1fa9397", f"{_TENSORFLOW}delegates/hexagon/utils.cc"),
        Source(
            "TensorFlow Lite 8-bit quantization specification, to which it says that models must conform",
            "commit 1b32f3f",
            f"{_TENSORFLOW}g3doc/performance/quantization_spec.md",
        ),
    ),
    operators=operators_named(
        "ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D FULLY_CONNECTED "
        "HARD_SWISH L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD QUANTIZE "
        "RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SLICE SOFTMAX SPACE_TO_DEPTH SPLIT STRIDED_SLICE "
        "SUB TANH TRANSPOSE TRANSPOSE_CONV"
    ),
    per_channel=frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"}),
    limits=(
        Rank(4),
        Stride(3, frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})),
        Dilation(frozenset({"CONV_2D"})),
        Dilation(frozenset({"DEPTHWISE_CONV_2D"}), with_stride_1=True),
        OneMultiplier(),
        Inputs(frozenset({"TRANSPOSE_CONV"}), 3),
        Flat(frozenset({"FULLY_CONNECTED"})),
        NoActivation(frozenset({"AVERAGE_POOL_2D", "L2_NORMALIZATION", "MAX_POOL_2D"})),
        ResizedTo(frozenset({"RESIZE_BILINEAR"}), 65),
    ),
    not_known=(
        "the README asks for depthwise filters of width 3, of which the code that it refers to says nothing",
        "versions of operators, which the delegate compares with a list, are not checked",
        "the delegate is in an experimental phase by its own page, and was not changed for years",
    ),
)
HEXAGON_HTP = Profile(
    name="hexagon-htp",
    device="Qualcomm Hexagon HTP, by the QNN compiler plugin of LiteRT",
    sources=(
        Source(
            "LiteRT to Qualcomm QNN Compiler Support",
            "commit 08c8bf6",
            "https://github.com/google-ai-edge/LiteRT/blob/main/litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md",
        ),
    ),
    operators=operators_named(
        "ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CEIL CONCATENATION CONV_2D CONV_3D COS "
        "CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP "
        "FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GELU GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION "
        "L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D "
        "MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX "
        "REDUCE_MIN RELU RELU_0_TO_1 RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 "
        "ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARE SQUARED_DIFFERENCE SQRT "
        "STABLEHLO_COMPOSITE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK"
    ),
    per_channel=None,
    int16=None,
    in_float=Float.DEVICE,
    not_known=(
        "the SDK of Qualcomm is asked about every single operator when a model is compiled, and may refuse it",
        "some chips have no float, by the release notes of Qualcomm's own delegate",
        "Qualcomm's own delegate, AI Engine Direct, has a list and restrictions of its own, which were not read",
    ),
)
