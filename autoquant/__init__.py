"""Turns a trained TensorFlow model into an INT8 model that keeps the accuracy you ask for.

>>> import autoquant
>>> result = autoquant.search("model.pb", "evaluation.npz", tolerance="1%", max_trials=50)  # doctest: +SKIP
>>> print(result.verdict, result.score, result.model)  # doctest: +SKIP

Scripts made for AMCT's TensorFlow tool find its functions here: `import autoquant as amct`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes a while to import: Ctrl-C is not heard properly before `__main__`
if TYPE_CHECKING:
    from typing import Any

    from autoquant.amct.auto_calibration import accuracy_based_auto_calibration
    from autoquant.amct.calibration import quantize_model
    from autoquant.amct.configuration import create_quant_config
    from autoquant.amct.evaluator import AutoCalibrationEvaluatorBase
    from autoquant.amct.graph_evaluator import GraphEvaluator
    from autoquant.amct.logs import set_logging_level
    from autoquant.amct.qat import convert_qat_model
    from autoquant.amct.saving import convert_model, save_model
    from autoquant.api import (
        benchmark,
        check,
        check_device,
        dry_run,
        evaluate,
        explain,
        export,
        inspect,
        quantize,
        resume,
        search,
        status,
        work,
    )
    from autoquant.errors import StopSearch

__version__ = "0.2.0"
__all__ = [
    "AutoCalibrationEvaluatorBase",
    "GraphEvaluator",
    "StopSearch",
    "accuracy_based_auto_calibration",
    "benchmark",
    "check",
    "check_device",
    "convert_model",
    "convert_qat_model",
    "create_quant_config",
    "dry_run",
    "evaluate",
    "explain",
    "export",
    "inspect",
    "quantize",
    "quantize_model",
    "resume",
    "save_model",
    "search",
    "set_logging_level",
    "status",
    "work",
]
_HOMES = {
    "AutoCalibrationEvaluatorBase": "autoquant.amct.evaluator",
    "GraphEvaluator": "autoquant.amct.graph_evaluator",
    "StopSearch": "autoquant.errors",
    "accuracy_based_auto_calibration": "autoquant.amct.auto_calibration",
    "convert_model": "autoquant.amct.saving",
    "convert_qat_model": "autoquant.amct.qat",
    "create_quant_config": "autoquant.amct.configuration",
    "quantize_model": "autoquant.amct.calibration",
    "save_model": "autoquant.amct.saving",
    "set_logging_level": "autoquant.amct.logs",
}
"""Where AMCT's functions and an exception are; all others are in autoquant/api.py."""


def __getattr__(name: str) -> Any:
    """Import the functions when they are first used: TensorFlow takes seconds, `import autoquant` must not."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(_HOMES.get(name, "autoquant.api")), name)
    raise AttributeError(f"module 'autoquant' has no attribute '{name}'")
