"""Google Coral Edge TPU: the page of its makers on what models it takes, and quotations of it."""

from __future__ import annotations

from autoquant.targets.profiles.limits import Innermost, NoActivation
from autoquant.targets.profiles.profile import Float, Profile, Source, operators_named
from autoquant.targets.profiles.windows import SquareDilation

EDGE_TPU = Profile(
    name="edgetpu",
    device="Google Coral Edge TPU, compiled by edgetpu_compiler 16",
    sources=(
        Source("TensorFlow models on the Edge TPU", "no date", "https://coral.ai/docs/edgetpu/models-intro/"),
        Source(
            "its requirements, quoted in google-coral/edgetpu issue 594",
            "2022-05-26",
            "https://github.com/google-coral/edgetpu/issues/594",
        ),
        Source(
            "its FAQ on the type of inputs and outputs, quoted in issue 439",
            "2021-08-16",
            "https://github.com/google-coral/edgetpu/issues/439",
        ),
        Source(
            "that compiler 16 takes Transpose, issue 193, and lists Conv2DTranspose, issue 684",
            "2021-08-03, 2022-11-26",
            "https://github.com/google-coral/edgetpu/issues/193",
        ),
        Source(
            "supported operators of the Edge TPU in ARTPEC-7, Axis, up to ResizeBilinear",
            "no date",
            "https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/supported-ops/",
        ),
        Source(
            "an older copy of the table of coral.ai, for the operators behind that",
            "2019",
            "https://github.com/dgist-datalab/Datalab_Intern/blob/master/Edge_TPU/convert_model_for_Edge_TPU.md",
        ),
    ),
    operators=operators_named(
        "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION "
        "LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 "
        "RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE "
        "STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM"
    ),
    per_channel=None,
    io=("int8",),
    in_float=Float.NOTHING,
    fixed_sizes=True,
    limits=(
        Innermost(3),
        NoActivation(frozenset({"AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D"})),
        SquareDilation(frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})),
    ),
    not_known=(
        "whether a later table lists further operators, such as RSQRT, SQUARED_DIFFERENCE or SUM",
        "everything behind the first operator that it cannot take runs on the CPU, by Axis: that is not counted",
        "that FULLY_CONNECTED makes one dimension, and limits on axes and sizes of single operators, are not checked",
        "how large tensors and strides may be: the compiler refuses some operators without a reason",
    ),
)
