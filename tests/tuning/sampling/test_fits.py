"""Corrected predictions and the curve from predicted divergence to drop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.tuning.sampling import fits
from autoquant.tuning.sampling.fits import Curve, corrections, fit_curve


def test_a_layer_that_was_misjudged_is_found() -> None:
    """Four plans of three layers; the third is four times as bad as predicted."""
    rows = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=np.float64)
    predicted, true = np.array([0.01, 0.02, 0.01]), np.array([0.01, 0.02, 0.04])
    found = corrections(rows * predicted, rows @ true)
    ratios = found * predicted / (found[0] * predicted[0])  # 1, 2, 1 as predicted; 1, 2, 4 in truth
    assert ratios[1] == pytest.approx(2.0, rel=0.4)
    assert 2.0 < ratios[2] <= 4.0


def test_inputs_that_are_worse_together_are_found_by_few_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve inputs are four times as bad as predicted beside their weights: three plans tell of all of them."""
    predicted, inputs = np.full(24, 0.01), np.arange(24) >= 12
    rows = np.ones((3, 24))
    rows[1, 12:18] = rows[2, 12:] = 0.0
    measured = rows @ np.where(inputs, 0.04, 0.01)
    apart, together = (corrections(rows * predicted, measured, inputs=own) for own in (None, inputs))
    assert together[18:].mean() > 2.0 * together[:12].mean() > 0.0
    assert together[18:].mean() > 1.2 * apart[18:].mean()
    many = np.tile(rows, (40, 1)) * predicted, np.tile(measured, 40)
    found = corrections(*many, inputs=inputs)
    monkeypatch.setattr(fits, "MANY", 1000)  # solved in terms of trials
    assert corrections(*many, inputs=inputs) == pytest.approx(found, rel=1e-6)


@given(st.floats(1e-3, 1e3))
def test_the_unit_of_what_is_measured_does_not_matter(unit: float) -> None:
    rows = np.array([[0.01, 0.02, 0.0], [0.01, 0.0, 0.03]])
    measured = np.array([0.05, 0.02])
    assert corrections(rows, measured * unit) == pytest.approx(corrections(rows, measured))


def test_nothing_measured_corrects_nothing() -> None:
    assert corrections(np.zeros((0, 3)), np.zeros(0)).tolist() == [1.0, 1.0, 1.0]
    assert corrections(np.zeros((2, 3)), np.array([1.0, math.nan])).tolist() == [1.0, 1.0, 1.0]


def test_without_trials_a_typical_divergence_is_critical() -> None:
    curve = fit_curve([], [], 0.01, typical=0.3)
    assert curve.chance(0.3) == pytest.approx(0.5)
    assert curve.chance(0.0) == 1.0
    assert curve.chance(math.inf) == 0.0


def test_one_trial_gives_a_line_through_it() -> None:
    assert fit_curve([0.2], [0.04], 0.01, typical=9.0).critical == pytest.approx(0.05)


@pytest.mark.parametrize("slope", [0.6, 1.0, 1.6])
def test_many_trials_give_their_curve(slope: float) -> None:
    divergences = np.geomspace(0.005, 0.5, 40)
    drops = 0.01 * (divergences / 0.05) ** slope
    curve = fit_curve(divergences.tolist(), drops.tolist(), 0.01, typical=9.0)
    assert curve.critical == pytest.approx(0.05, rel=0.1)
    assert curve.slope == pytest.approx(slope, rel=0.2)


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(-0.5, 1.0)), max_size=6), st.sampled_from([0.0, 1e-3, 0.01, 0.5])
)
def test_a_larger_divergence_is_never_likelier_to_be_within(points: list[tuple[float, float]], max_drop: float) -> None:
    curve = fit_curve([divergence for divergence, _ in points], [drop for _, drop in points], max_drop, typical=1.0)
    chances = [curve.chance(divergence) for divergence in np.geomspace(1e-9, 1e6, 30)]
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert all(later <= earlier for earlier, later in itertools.pairwise(chances))


@given(st.floats(0.01, 0.99))
def test_the_divergence_at_a_chance_has_that_chance(chance: float) -> None:
    curve = Curve(0.2, 0.8, 0.5)
    assert curve.chance(curve.divergence_at(chance)) == pytest.approx(chance)
