"""Turns a trained TensorFlow model into an INT8 model that keeps the accuracy you ask for.

>>> import autoquant
>>> result = autoquant.search("model.pb", "evaluation.npz", tolerance="1%", max_trials=50)  # doctest: +SKIP
>>> print(result.verdict, result.score, result.model)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoquant.api import export, inspect, quantize, resume, search

__version__ = "0.1.0"
__all__ = ["export", "inspect", "quantize", "resume", "search"]


def __getattr__(name: str) -> Any:
    """Import the functions when they are first used: TensorFlow takes seconds, `import autoquant` must not."""
    if name in __all__:
        from autoquant import api

        return getattr(api, name)
    raise AttributeError(f"module 'autoquant' has no attribute '{name}'")
