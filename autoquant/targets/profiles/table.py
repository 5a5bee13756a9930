"""The profiles there are. A new one is a value in a file beside this one, and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from autoquant.errors import UsageError, did_you_mean
from autoquant.targets.profiles.edge_tpu import EDGE_TPU
from autoquant.targets.profiles.espressif import ESP32_P4, ESP32_S3, ESP_TFLITE_MICRO
from autoquant.targets.profiles.ethos_u import ETHOS_U55, ETHOS_U85, ETHOS_U_VELA_3
from autoquant.targets.profiles.mediatek import MEDIATEK
from autoquant.targets.profiles.profile import Profile
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
