"""The range algorithms that AMCT has, and what their parameters are called in its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from autoquant.calibration.ranges import Ifmr, RangeAlgorithm, range_name

AMCT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"ifmr": ("max_percentile", "min_percentile", "search_range", "search_step"), "hfmg": ("num_of_bins",)}
)
"""Algorithm -> its parameters in config.json. The others of RANGES are our own."""
FP16 = "FORCE_FP16_QUANT"
"""The fakequant_precision_mode that rounds scales of activations to float16."""


def parameters(setting: RangeAlgorithm) -> dict[str, Any]:
    """An algorithm and its parameters as config.json has them: the two ends of IFMR's search are one list."""
    values = asdict(setting)
    if isinstance(setting, Ifmr):
        values["search_range"] = [values.pop("search_start"), values.pop("search_end")]
    return {"act_algo": range_name(setting), **values}
