from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration import levels as module
from autoquant.calibration.exact import Exact
from autoquant.calibration.levels import Levels, first_least, legal, squared_errors, symmetric_levels
from autoquant.calibration.sketch import Sketch

VALUES = st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=40)
ROWS = st.lists(st.tuples(st.floats(-120.0, 20.0), st.floats(0.01, 5.0), st.integers(1, 60)), min_size=1, max_size=5)


def reference(values: list[float], rows: list[tuple[float, float, int]]) -> list[float]:
    """Distance to the nearest level, one row after the other."""
    errors = []
    for start, step, number in rows:
        levels = start + step * np.arange(number)
        errors.append(float((np.abs(np.array(values)[:, None] - levels).min(axis=1) ** 2).sum()))
    return errors


def as_levels(rows: list[tuple[float, float, int]]) -> Levels:
    start, step, number = zip(*rows, strict=True)
    return Levels(np.array(start), np.array(step), np.array(number))


@pytest.mark.parametrize("chunk", [1 << 20, 3], ids=["at once", "in chunks"])
@given(values=VALUES, rows=ROWS)
def test_against_every_distance(chunk: int, values: list[float], rows: list[tuple[float, float, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        patch.setattr(module, "ROWS", 2)
        found = squared_errors(Exact(np.sort(np.array(values, np.float32))), as_levels(rows))
    # What cancels are squares of up to 220 + 60 * 5.
    np.testing.assert_allclose(found, reference(values, rows), atol=1e-9 * len(values))


def test_counts() -> None:
    counts = np.zeros(9, np.int64)
    counts[[0, 5, 8]] = 2, 1000, 7
    sketch = Sketch(-4.0, 4.0, 1.0, -4, counts)  # values -4 and -3.5, 1.5 a thousand times, 4 seven times
    rows = [(-4.0, 4.0, 3), (-10.0, 1.0, 1)]
    found = squared_errors(sketch, as_levels(rows))
    np.testing.assert_allclose(found, reference([-4.0, -3.5, *[1.5] * 1000, *[4.0] * 7], rows), rtol=1e-12)


def test_symmetric_levels() -> None:
    levels = symmetric_levels(np.array([-1.0, -256.0]), np.array([127.0, 3.0]))
    assert levels.start.tolist() == [-128.0, -256.0]
    assert levels.step.tolist() == [1.0, 2.0]
    assert levels.last.tolist() == [127.0, 254.0]


def test_legal() -> None:
    eps = 2.0**-23
    scales = np.array([0.0, 0.99 * eps, eps, 1.0, 2.0**23, 1.01 * 2.0**23, np.inf, np.nan])
    assert legal(scales).tolist() == [2, 3, 4]


@pytest.mark.parametrize(("errors", "place"), [([3.0, 1.0, 2.0, 1.0], 1), ([1.0 + 1e-14, 1.0], 0), ([1.001, 1.0], 1)])
def test_the_first_of_equals(errors: list[float], place: int) -> None:
    rows = Levels(np.zeros(4), np.ones(4), np.full(4, 2))
    assert first_least(np.array(errors), rows, 2) == place
