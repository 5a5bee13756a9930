"""The range algorithms that AMCT has: what their parameters are called in its files, and which values are legal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from autoquant.calibration.ranges import RANGES, Ifmr, RangeAlgorithm, range_name

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


def algorithm(name: str, values: Mapping[str, Any]) -> RangeAlgorithm:
    """An algorithm of RANGES with these parameters, and defaults for the others.

    Raises ValueError, for IFMR in the words of AMCT, where one is out of range.
    """
    default = asdict(RANGES[name]())
    chosen = {**default, **values}
    if name == "ifmr":
        _check_ifmr(**chosen)
    return RANGES[name](**chosen)


def _check_ifmr(
    *, max_percentile: float, min_percentile: float, search_start: float, search_end: float, search_step: float
) -> None:
    for name, fraction in (("max_percentile", max_percentile), ("min_percentile", min_percentile)):
        if not 0.5 < fraction <= 1.0:  # NaN fails too, here and below
            raise ValueError(f"{name} must be greater than 0.5 and less than or equal to 1.0, got {fraction}")
    bounds = f"got [{search_start}, {search_end}]"
    if not search_start > 0.0:
        raise ValueError(f"search_range[0] must be greater than zero, {bounds}")
    if not search_start < search_end < math.inf:
        raise ValueError(f"search_range[0] must be less than search_range[1], {bounds}")
    if not search_step > 0.0:
        raise ValueError(f"search_step must be greater than zero, got {search_step}")
    if not search_step <= search_end - search_start:
        difference = "(search_range[1] - search_range[0])"
        raise ValueError(f"search_step must be less than or equal to {difference}, got {search_step} and {bounds}")
