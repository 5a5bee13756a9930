"""Range algorithms: which real interval INT8 should cover, by the distribution of a tensor.

To add one: a file with a frozen dataclass of its parameters that can be called with what was seen, and a row in RANGES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from autoquant.calibration.distribution import Distribution
from autoquant.calibration.entropy import Entropy
from autoquant.calibration.hfmg import Hfmg
from autoquant.calibration.percentile import Ifmr, MinMax, Percentile
from autoquant.calibration.squared_error import Mse
from autoquant.quantization.affine import Range

__all__ = ["RANGES", "Entropy", "Hfmg", "Ifmr", "MinMax", "Mse", "Percentile", "RangeAlgorithm", "range_name"]


class RangeAlgorithm(Protocol):
    """Chooses the real range that INT8 should cover, from the distribution of one tensor.

    A frozen dataclass of its parameters, so that two of equal parameters are equal.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """The range; `symmetric` says that it will be used with offset 0. `distribution` holds at least one value."""
        ...


RANGES: Mapping[str, Callable[..., RangeAlgorithm]] = MappingProxyType(
    {
        "entropy": Entropy,
        "hfmg": Hfmg,
        "ifmr": Ifmr,
        "minmax": MinMax,
        "mse": Mse,
        "percentile": Percentile,
    }
)


def range_name(setting: RangeAlgorithm) -> str:
    """The word for a setting's algorithm."""
    return next(name for name, kind in RANGES.items() if type(setting) is kind)
