"""The engines there are. A new one is a file beside this one, and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from autoquant.evaluation.engines.engine import Engine


def _litert() -> Engine:
    from autoquant.evaluation.engines.litert import LiteRTEngine

    return LiteRTEngine()


def _tensorflow() -> Engine:
    from autoquant.evaluation.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine()


ENGINES: Mapping[str, Callable[[], Engine]] = MappingProxyType({"litert": _litert, "tensorflow": _tensorflow})
"""Name -> how to make it. Each is imported only when it is asked for: TensorFlow takes seconds."""


def open_engine(name: str) -> Engine:
    """An engine by name, which is in the table."""
    return ENGINES[name]()
