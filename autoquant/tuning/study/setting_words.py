"""Settings in words: the choices of dimensions, and what screens and trials say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from autoquant.calibration.ranges import RANGES, RangeAlgorithm, range_name

QUANT_ENABLE = "quant_enable"
"""The setting that says whether a layer is in INT8 or in float."""


def label(setting: RangeAlgorithm) -> str:
    """A range setting in words: its algorithm, and the parameters that are not the default.

    >>> label(Ifmr(max_percentile=0.9999))
    'ifmr max_percentile=0.9999'
    """
    name = range_name(setting)
    default = asdict(RANGES[name]())
    return " ".join([name, *(f"{key}={value}" for key, value in asdict(setting).items() if value != default[key])])


def choice_label(value: RangeAlgorithm | float | None) -> str:
    """A choice of a dimension that is not a plain value, in words."""
    if value is None:
        return "no dmq"
    return f"dmq {value}" if isinstance(value, float) else label(value)


def setting_words(name: str, value: Any) -> str:
    """A value of a setting in words: of a plan, or of a dimension of the whole model.

    >>> setting_words("batch_num", 8), setting_words("channel_wise", False), setting_words("dmq", None)
    ('8 batches', 'per-tensor', 'no dmq')
    """
    return SETTING_WORDS[name](value) if name in SETTING_WORDS else f"{name} {value}"


SETTING_WORDS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "batch_num": lambda count: f"{count} batches" if count != 1 else "1 batch",
        "equalize": lambda on: "equalized" if on else "not equalized",
        "bias_correction": lambda how: "biases not corrected" if how == "none" else f"biases corrected ({how})",
        "activation": str,
        "asymmetric": lambda on: "asymmetric" if on else "symmetric",
        "channel_wise": lambda on: "per-channel" if on else "per-tensor",
        "weight_bits": lambda bits: f"{bits}-bit weights",
        "dmq": lambda value: value if isinstance(value, str) else choice_label(value),
        "weight_algorithm": lambda name: f"weights by {name}",
        QUANT_ENABLE: lambda on: "tensors quantized" if on else "tensors in float",
    }
)
"""Setting -> how a value of it is written on screens and in trials; others are written as they are."""
