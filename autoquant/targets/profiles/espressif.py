"""Espressif: ESP-DL, whose arithmetic shifts instead of multiplying, and TensorFlow Lite Micro with ESP-NN."""

from __future__ import annotations

from autoquant.targets.profiles.limits import NoGroups, Rank
from autoquant.targets.profiles.profile import Float, Profile, Source, operators_named
from autoquant.targets.profiles.windows import POOLINGS, Dilation

_ESP_DL = "https://github.com/espressif/esp-dl/"
_KERNELS = "https://github.com/espressif/esp-tflite-micro/blob/master/tensorflow/lite/micro/kernels/esp_nn/"
_SOURCES = (
    Source("ESP-DL, Operator Support State", "2025-08-19", f"{_ESP_DL}blob/39adbd2/operator_support_state.md"),
    Source(
        "ESP-DL, How to quantize model",
        "commit 20ace1c",
        f"{_ESP_DL}blob/master/docs/en/tutorials/how_to_quantize_model.rst",
    ),
    Source("ESP-DL, release notes", "v3.3.14", f"{_ESP_DL}releases/tag/v3.3.14"),
)
_OPERATORS = operators_named(
    "ADD AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D DIV ELU EQUAL EXP EXPAND_DIMS "
    "FULLY_CONNECTED GATHER GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGISTIC MAX_POOL_2D MEAN "
    "MUL PAD PADV2 PRELU REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_SEQUENCE SLICE SOFTMAX SPLIT SPLIT_V SQRT SQUEEZE STRIDED_SLICE SUB SUM TANH "
    "TRANSPOSE"
)
"""ESP-DL's names are those of ONNX: Gemm is FULLY_CONNECTED, MatMul BATCH_MATMUL, Clip RELU6 and the like, Sigmoid
LOGISTIC, ReduceMean MEAN, Unsqueeze EXPAND_DIMS, and Conv with as many groups as channels DEPTHWISE_CONV_2D."""
_LIMITS = (Rank(4), NoGroups(), Dilation(POOLINGS))
_OPEN = (
    "ESP-DL reads .espdl files, which ESP-PPQ makes of ONNX: the .tflite says what its arithmetic costs, and has the "
    "scales, but is not what runs there",
    "biases are INT32 in a .tflite; how ESP-DL holds them is not checked",
    "LOGISTIC and SOFTMAX, whose results have an offset in a .tflite, stay in float in it, as do operators that LiteRT "
    "Quantizer does not make INT8; ESP-DL has kernels for those that it lists",
    "activations of 16 bits with weights of 8 are said to be possible from 3.3.11 on, not of which operators",
    "chips round ties in two ways, up or to even: the file is scored as LiteRT rounds",
)

ESP32_S3 = Profile(
    name="esp32-s3",
    device="Espressif ESP32-S3, by ESP-DL",
    sources=_SOURCES,
    operators=_OPERATORS,
    per_channel=frozenset(),
    symmetric=True,
    power_of_two=True,
    int16=None,
    in_float=Float.NOTHING,
    has_cpu=False,
    fixed_sizes=True,
    takes_tflite=False,
    limits=_LIMITS,
    not_known=(
        *_OPEN,
        "the release notes name scales for every channel for the ESP32-P4 alone; older specifications had them for all",
    ),
)
ESP32_P4 = Profile(
    name="esp32-p4",
    device="Espressif ESP32-P4, by ESP-DL 3.3.1 and ESP-PPQ 1.2.10 or later",
    sources=_SOURCES,
    operators=_OPERATORS,
    per_channel=frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}),
    symmetric=True,
    power_of_two=True,
    int16=None,
    in_float=Float.NOTHING,
    has_cpu=False,
    fixed_sizes=True,
    takes_tflite=False,
    limits=_LIMITS,
    not_known=_OPEN,
)
ESP_TFLITE_MICRO = Profile(
    name="esp-tflite-micro",
    device="Espressif ESP32 chips, by esp-tflite-micro with ESP-NN",
    sources=(
        Source("CONV_2D of ESP-NN", "commit a37521a", f"{_KERNELS}conv.cc"),
        Source("DEPTHWISE_CONV_2D of ESP-NN", "commit 0032f17", f"{_KERNELS}depthwise_conv.cc"),
        Source(
            "FULLY_CONNECTED of ESP-NN, one multiplier for the tensor",
            "commit eeb4e85",
            f"{_KERNELS}fully_connected.cc",
        ),
    ),
    operators=None,
    per_channel=frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"}),
    int16=frozenset({"CONV_2D", "FULLY_CONNECTED"}),
    not_known=(
        "which operators an application links in is its own choice",
        "the kernels of TRANSPOSE_CONV and of all operators between layers were not read",
        "later versions may take FULLY_CONNECTED with a scale for every channel",
    ),
)
