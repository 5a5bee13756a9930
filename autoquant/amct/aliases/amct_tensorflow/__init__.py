"""What scripts import as amct_tensorflow: AMCT's functions, which are those of autoquant."""

from importlib import import_module
from typing import Any

import autoquant
from autoquant.amct.unsupported import unsupported

__all__ = [
    "AutoCalibrationEvaluatorBase",
    "GraphEvaluator",
    "accuracy_based_auto_calibration",
    "convert_model",
    "convert_qat_model",
    "create_quant_config",
    "quantize_model",
    "save_model",
    "set_logging_level",
]
MODULES = frozenset({"accuracy_based_auto_calibration", "common", "tensor_decompose", "utils"})
"""The first is a function as well."""


def __getattr__(name: str) -> Any:
    """Import a function or module when it is first used, as autoquant does."""
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    return getattr(autoquant, name) if name in __all__ else unsupported(name)
