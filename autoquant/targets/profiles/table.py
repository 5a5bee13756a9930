"""The profiles there are. A new one is a value in a file beside this one, and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from autoquant.errors import UsageError, did_you_mean
from autoquant.targets.profiles.edge_tpu import EDGE_TPU
from autoquant.targets.profiles.espressif import ESP32_P4, ESP32_S3, ESP_TFLITE_MICRO
from autoquant.targets.profiles.ethos_u import ETHOS_U55, ETHOS_U85, ETHOS_U_VELA_3
from autoquant.targets.profiles.mediatek import MEDIATEK
from autoquant.targets.profiles.profile import Profile, Source
from autoquant.targets.profiles.qualcomm import HEXAGON_DSP, HEXAGON_HTP

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        one.name: one
        for one in (
            EDGE_TPU,
            ESP_TFLITE_MICRO,
            ESP32_P4,
            ESP32_S3,
            ETHOS_U55,
            ETHOS_U85,
            ETHOS_U_VELA_3,
            HEXAGON_DSP,
            HEXAGON_HTP,
            MEDIATEK,
        )
    }
)
"""Name -> profile."""


def open_profile(name: str) -> Profile:
    """A profile by name. Raises UsageError for one that there is not."""
    if name not in PROFILES:
        hint = did_you_mean(name, PROFILES, otherwise="`autoquant guide profiles` says what each is")
        raise UsageError("--profile", f"unknown '{name}': there are {', '.join(PROFILES)}", hint=hint)
    return PROFILES[name]


ANY = Profile(
    name="integer-only",
    device="any device that runs LiteRT's integer kernels",
    sources=(
        Source(
            "LiteRT 8-bit quantization specification",
            "2026-11",
            "https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec",
        ),
    ),
    operators=None,
    per_channel=None,
    int16=None,
    checked="against LiteRT's interpreter; on no device",
)
"""No device in particular, for a file without float."""


def chosen_profile(name: str, *, integer_only: bool) -> Profile | None:
    """The profile that a file must suit: of a device, and, with `integer_only`, without float. Raises UsageError."""
    profile = open_profile(name) if name else None
    return replace(profile or ANY, integer_only=True) if integer_only else profile
