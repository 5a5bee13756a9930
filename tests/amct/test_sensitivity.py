"""The measures by which layers are ranked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from autoquant.amct.ranking import (
    SENSITIVITIES,
    CosineSimilaritySensitivity,
    MseSensitivity,
    SensitivityBase,
    open_sensitivity,
)
from autoquant.errors import UsageError

VALUES = arrays(np.float32, (2, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32))
COSINE = [
    ([3.0, 4.0], [6.0, 8.0], 1.0),
    ([1.0, 0.0], [0.0, 1.0], 0.5),
    ([1.0, 2.0], [-1.0, -2.0], 0.0),
    ([1.0, 0.0], [1.0, 1.0], 0.5 + 0.5 / math.sqrt(2)),
    ([0.0, 0.0], [1.0, 0.0], 1.0),
    ([0.0, 0.0], [0.0, 0.0], 1.0),
    ([1.0, 0.0], [0.0, 0.0], 0.0),
]


@pytest.mark.parametrize(("original", "fakequant", "expected"), COSINE)
def test_cosine(original: list[float], fakequant: list[float], expected: float) -> None:
    found = CosineSimilaritySensitivity().compare(np.array(original, np.float32), np.array(fakequant, np.float32))
    assert found == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(VALUES, st.floats(1e-3, 1e3))
def test_the_cosine_does_not_see_a_factor_and_stays_in_bounds(values: NDArray[Any], factor: float) -> None:
    compare = CosineSimilaritySensitivity().compare
    assert compare(values, values.astype(np.float64) * factor) == pytest.approx(1.0, abs=1e-9)
    assert 0.0 <= compare(values, values[::-1]) <= 1.0


MSE = [
    ([1.0, 2.0], [1.0, 4.0], False, 2.0),
    ([1.0, 2.0], [1.0, 4.0], True, 0.8),
    ([1.0, 2.0], [1.0, 2.0], True, 0.0),
    ([0.0, 0.0], [1.0, 1.0], True, 1.0),
]


@pytest.mark.parametrize(("original", "fakequant", "normalized", "expected"), MSE)
def test_mse(original: list[float], fakequant: list[float], normalized: bool, expected: float) -> None:
    measure = MseSensitivity(do_normalization=normalized)
    assert measure.compare(np.array(original, np.float32), np.array(fakequant, np.float32)) == pytest.approx(expected)


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_all_know_better_from_worse(name: str) -> None:
    """Arrays of any shape; the larger error is the worse, whichever way the numbers go."""
    measure = SENSITIVITIES[name]()
    rng = np.random.default_rng(0)
    original = rng.normal(size=(2, 3, 4)).astype(np.float32)
    noise = rng.normal(size=original.shape).astype(np.float32)
    equal, near, far = (measure.compare(original, original + size * noise) for size in (0.0, 0.01, 0.5))
    assert (equal > near > far) if measure.higher_is_better else (equal < near < far)


def test_by_name_or_an_object_of_ones_own() -> None:
    class Own:
        def compare(self, original: Any, fakequant: Any) -> Any:
            return 1.0

    own = Own()
    assert open_sensitivity(own) is own
    assert isinstance(open_sensitivity("CosineSimilarity"), CosineSimilaritySensitivity)
    with pytest.raises(UsageError, match="sensitivity: unknown 'Cosine_Similarity'; did you mean 'CosineSimilarity'"):
        open_sensitivity("Cosine_Similarity")
    assert isinstance(open_sensitivity("MseSensitivity"), MseSensitivity)
    with pytest.raises(UsageError, match=r"sensitivity: MseSensitivity is a class; give an object of it: Mse"):
        open_sensitivity(MseSensitivity)
    with pytest.raises(UsageError, match="float has no method compare"):
        open_sensitivity(0.5)
    with pytest.raises(UsageError, match=r"SensitivityBase: has no compare\(original, fakequant\) of its own"):
        SensitivityBase().compare(np.zeros(1), np.zeros(1))
