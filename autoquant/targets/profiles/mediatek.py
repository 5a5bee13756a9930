"""MediaTek NeuroPilot: its MDLA by the guidelines of MediaTek, and by the compiler plugin of LiteRT."""

from __future__ import annotations

from autoquant.targets.profiles.limits import Rank, Size
from autoquant.targets.profiles.profile import Float, Profile, Source, operators_named

MEDIATEK = Profile(
    name="mediatek-mdla3",
    device="MediaTek MDLA 3.0 (MT8188 and the like), by the Neuron compiler plugin of LiteRT",
    sources=(
        Source(
            "LiteRT to MediaTek Neuron Compiler Support",
            "commit 1551136",
            "https://github.com/google-ai-edge/LiteRT/blob/main/litert/vendors/mediatek/compiler/MediaTek_Neuro_Compiler.md",
        ),
        Source(
            "MDLA 3.0 Guidelines, general restrictions",
            "MT8188, no date",
            "https://mediatek.gitlab.io/aiot/doc/aiot-dev-guide/master/sw/yocto/ml-guide/neuron-sdk/mt8188/"
            "supported-operations/mdla-guide/mdla_guidelines_3_0.html",
        ),
    ),
    operators=operators_named(
        "ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE DIV "
        "FULLY_CONNECTED GELU GREATER HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LOGISTIC MAXIMUM MAX_POOL_2D MEAN "
        "MINIMUM MUL PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT "
        "SLICE SOFTMAX SPLIT SQRT SQUARED_DIFFERENCE STABLEHLO_COMPOSITE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE "
        "TRANSPOSE_CONV UNPACK"
    ),
    per_channel=frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "PRELU", "TRANSPOSE_CONV"}),
    int16=None,
    in_float=Float.DEVICE,
    limits=(Rank(4), Size(65535)),
    not_known=(
        "the guidelines' restrictions of single operators, on kernels, strides and padding, were not read",
        "the Neuron compiler is asked about every single operator when a model is compiled, and may refuse it",
        "MediaTek says that its limits are those of the compiler, not always those of the hardware",
        "activations of 16 bits must be symmetric and have one scale for the tensor",
    ),
)
