"""The type of arrays in signatures."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
