"""A module that scripts import the function from, or call as if it were the function itself."""

import sys
from types import ModuleType
from typing import Any

from autoquant.amct.auto_calibration import accuracy_based_auto_calibration

__all__ = ["accuracy_based_auto_calibration"]


class _Callable(ModuleType):
    """Once imported, the module takes the place of the function in its package."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Call the function."""
        accuracy_based_auto_calibration(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
