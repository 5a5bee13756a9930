"""How much INT8 changes what a layer gives: the measures by which layers are ranked for roll-back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.amct.arguments import by_name_or_own, not_overridden
from autoquant.array import Array
from autoquant.evaluation.metrics.divergence import cosine_similarity


class SensitivityBase:
    """Compares a layer's output in float with that in INT8; a user's own overrides `compare`.

    AMCT rolls back the layers with the smallest numbers first, so a number must be large where the two are alike.
    A measure that is large where they differ says so with `higher_is_better = False`.
    """

    higher_is_better = True

    def compare(self, original_output: Array, fakequant_output: Array) -> float:
        """One number for two arrays of equal shape: what the layer gives for one batch in float, and in INT8."""
        raise not_overridden(self, "compare(original, fakequant)")


class CosineSimilaritySensitivity(SensitivityBase):
    """0.5 + 0.5 cos of the angle between the two, in [0, 1]; 1 where they have the same direction."""

    def compare(self, original_output: Array, fakequant_output: Array) -> float:
        """1 where the float output is all zero, 0 where only the other is."""
        original, fakequant = _flat(original_output), _flat(fakequant_output)
        if original.any() and not fakequant.any():
            return 0.0
        return 0.5 + 0.5 * cosine_similarity(original, fakequant)


class MseSensitivity(SensitivityBase):
    """Mean squared difference; with `do_normalization` as a part of the float output's mean square, if that is not 0.

    It is 0 where the two are equal.
    """

    higher_is_better = False

    def __init__(self, do_normalization: bool = False) -> None:
        self.do_normalization = do_normalization

    def compare(self, original_output: Array, fakequant_output: Array) -> float:
        """In squared units of the output, or without unit when normalized."""
        original, fakequant = _flat(original_output), _flat(fakequant_output)
        error = float(np.mean((original - fakequant) ** 2)) if original.size else 0.0
        power = float(np.mean(original**2)) if self.do_normalization and original.any() else 1.0
        return error / power


SENSITIVITIES: Mapping[str, Callable[[], SensitivityBase]] = MappingProxyType(
    {"CosineSimilarity": CosineSimilaritySensitivity, "Mse": MseSensitivity}
)


def open_sensitivity(sensitivity: Any) -> Any:
    """A measure by name, or the user's own object with a method `compare`. Raises UsageError."""
    return by_name_or_own("sensitivity", sensitivity, SENSITIVITIES, ["compare"], base="SensitivityBase")


def _flat(output: Array) -> Array:
    return np.asarray(output, np.float64).reshape(-1)
