from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import UsageError
from autoquant.evaluation.statistics.tolerance import Tolerance, drop_from, within


@pytest.mark.parametrize(
    ("text", "value", "relative", "absolute"),
    [
        ("0.005", 0.005, False, 0.005),
        (0.005, 0.005, False, 0.005),
        ("0", 0.0, False, 0.0),
        (0, 0.0, False, 0.0),
        (" 1e-3 ", 0.001, False, 0.001),
        ("1%", 0.01, True, 0.008),
        ("0.5 %", 0.005, True, 0.004),
        ("100%", 1.0, True, 0.8),
    ],
)
def test_parse(text: str | float, value: float, relative: bool, absolute: float) -> None:
    tolerance = Tolerance.parse(text)
    assert tolerance == Tolerance(value, relative)
    assert tolerance.absolute(0.8) == pytest.approx(absolute, rel=1e-15)


@pytest.mark.parametrize("text", ["", "%", "1%%", "one", "-0.1", "-1%", "nan", "nan%", "inf", "0,5", "1% of it", None])
def test_texts_that_are_no_tolerance(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Tolerance.parse(text)
    assert str(caught.value) == (
        f"--tolerance: cannot read '{text}'; "
        "give a number of at least 0 such as 0.005, or a percentage of the baseline such as 1%"
    )


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_values_that_are_none(value: float) -> None:
    with pytest.raises(ValueError, match="a tolerance must be a number of at least 0"):
        Tolerance(value)


@given(st.floats(0.0, 1e6).filter(lambda value: value == 0.0 or value > 1e-300), st.booleans())
def test_written_and_read(value: float, relative: bool) -> None:
    read = Tolerance.parse(str(Tolerance(value, relative)))
    assert read.relative is relative and read.value == pytest.approx(value, rel=1e-14, abs=0.0)


@given(st.decimals(0, 100, places=8), st.sampled_from(["", "%"]))
def test_a_tolerance_is_kept_as_written(number: object, unit: str) -> None:
    tolerance = Tolerance.parse(f"{number}{unit}")
    assert Tolerance.parse(str(tolerance)) == tolerance


@pytest.mark.parametrize(
    ("text", "shown"), [("0.005", "0.005"), ("1%", "1%"), ("7%", "7%"), ("0.7%", "0.7%"), (0, "0")]
)
def test_as_a_person_writes_it(text: str | float, shown: str) -> None:
    assert str(Tolerance.parse(text)) == shown


def test_a_relative_tolerance_of_a_negative_baseline() -> None:
    assert Tolerance.parse("10%").absolute(-20.0) == 2.0


@pytest.mark.parametrize(
    ("baseline", "score", "higher_is_better", "expected"),
    [(0.75, 0.5, True, 0.25), (0.5, 0.75, True, -0.25), (0.5, 0.75, False, 0.25), (0.75, 0.5, False, -0.25)],
)
def test_drop(baseline: float, score: float, higher_is_better: bool, expected: float) -> None:
    assert drop_from(baseline, score, higher_is_better=higher_is_better) == expected


@pytest.mark.parametrize(
    ("loss", "allowed", "expected"),
    [
        (0.7604 - 0.7554, 0.005, True),  # 0.0050000000000000044
        (0.0052, 0.005, False),
        (0.005001, 0.005, False),
        (0.0, 0.0, True),
        (-0.1, 0.0, True),
        (0.0002, 0.0, False),
        (2e-12, 1e-12, False),  # a mean squared error may be that small
        (math.nan, 0.005, False),
        (math.inf, 0.005, False),
        (-math.inf, 0.0, True),
    ],
)
def test_within(loss: float, allowed: float, expected: bool) -> None:
    assert within(loss, allowed) is expected


@given(st.integers(1, 50_000), st.data())
def test_a_share_of_samples_is_within_its_own_tolerance(samples: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, samples))
    lost = data.draw(st.integers(0, right))
    loss = drop_from(right / samples, (right - lost) / samples, higher_is_better=True)
    assert within(loss, lost / samples)
    assert lost == 0 or not within(loss, (lost - 1) / samples)
