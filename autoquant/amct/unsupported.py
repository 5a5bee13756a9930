"""Functions of AMCT that are not here: importing one is no error, calling it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from autoquant.errors import UsageError

RETRAINING = (
    "quantization-aware training is not supported",
    "train with FakeQuantWithMinMaxVars, and give the frozen .pb to convert_qat_model",
)
PRUNING = "pruning is not supported", "prune with another tool, and quantize what it saves"
DECOMPOSITION = "tensor decomposition is not supported", "decompose with another tool, and quantize what it saves"
PERFORMANCE = (
    "measuring on an Ascend device is not supported",
    "use accuracy_based_auto_calibration, or `autoquant search --objective macs`",
)
ONLINE = (
    "inference within a TensorFlow session on an Ascend device is not supported",
    "use amct_tensorflow: create_quant_config, quantize_model and save_model",
)
UNSUPPORTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "auto_channel_prune_search": PRUNING,
        "auto_decomposition": DECOMPOSITION,
        "create_compressed_retrain_model": PRUNING,
        "create_prune_retrain_model": PRUNING,
        "create_quant_config_ascend": ONLINE,
        "create_quant_retrain_config": RETRAINING,
        "create_quant_retrain_model": RETRAINING,
        "decompose_graph": DECOMPOSITION,
        "perf_based_auto_calibration": PERFORMANCE,
        "quantize_model_ascend": ONLINE,
        "save_compressed_retrain_model": PRUNING,
        "save_model_ascend": ONLINE,
        "save_prune_retrain_model": PRUNING,
        "save_quant_retrain_model": RETRAINING,
    }
)
"""Name -> why it cannot be called, and the way out."""


def unsupported(name: str) -> Callable[..., NoReturn]:
    """What stands in for a function: it raises UsageError. Raises AttributeError where AMCT has no such name either."""
    if name not in UNSUPPORTED:
        raise AttributeError(f"neither AMCT nor autoquant has '{name}' here")
    what, hint = UNSUPPORTED[name]

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise UsageError(name, what, hint=hint)

    return refuse
