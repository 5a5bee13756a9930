"""Samples that are kept apart."""

import re
from dataclasses import replace

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.splits import check_apart, fresh, without_shared
from autoquant.evaluation.metrics.metric import open_metric
from autoquant.evaluation.metrics.user_metric import UserMetric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.evaluator import Score
from autoquant.evaluation.statistics.paired import least_bounded
from autoquant.model.model import InputSpec
from autoquant.tuning.certification.division import divided, keep_division, kept_division

SPEC = InputSpec("x", np.dtype(np.float32), (None, 3))
X = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)


def data(x):
    return open_data((x, None), [SPEC])


def divide(x=X, *, allowed=0.01, rows=None, metric="top1", seed=0, calibration=None):
    rows = np.ones(len(x)) if rows is None else rows
    baseline = Baseline("", (), Score(float(rows.mean()), rows, len(x)))
    given = None if calibration is None else data(calibration)
    metric = open_metric(metric) if isinstance(metric, str) else metric
    return divided(data(x), metric, baseline, allowed=allowed, confidence=0.95, seed=seed, calibration=given)


def test_samples_of_both_are_refused_by_number():
    with pytest.raises(DataError) as caught:
        check_apart("calibration", data(X[90:200]), "evaluation", data(X[:100]))
    assert str(caught.value) == (
        "data: 10 of 110 samples for calibration are for evaluation too (the first is sample 0); a score on what was "
        "used before is too good: give other data for calibration, or --allow-overlap"
    )
    check_apart("calibration", data(X[100:200]), "evaluation", data(X[:100]))


def test_half_is_kept_aside_and_all_samples_are_there_once():
    found = divide()
    assert len(found.certification) == 500
    both = np.concatenate([found.search, found.certification])
    np.testing.assert_array_equal(np.sort(both), np.arange(1000))
    assert (np.diff(found.search) > 0).all()
    assert not np.array_equal(divide(seed=1).search, found.search)


def test_copies_stay_together():
    x = np.concatenate([X[:500], X[:500]])
    found = divide(x)
    assert not np.isin(found.search % 500, found.certification % 500).any()
    assert len(found.search) + len(found.certification) == 1000


def test_what_calibration_has_too_does_not_certify():
    found = divide(calibration=X[:150])
    assert found.certification.min() >= 150
    assert found.left_out == 500 - len(found.certification) > 0
    assert len(found.search) + len(found.certification) == 1000
    assert divide().left_out == 0


@pytest.mark.parametrize(
    "copied",
    [{"x": np.tile(X[:10], (100, 1))}, {"x": np.tile(X[:400], (3, 1))}, {"calibration": X}, {"calibration": X[:600]}],
    ids=["all", "many", "calibration has all", "calibration has many"],
)
def test_where_copies_leave_too_little_nothing_is_kept_aside(copied):
    found = divide(**copied)
    assert len(found.search) == len(copied.get("x", X))
    assert (len(found.certification), found.left_out) == (0, 0)
    assert re.fullmatch(
        r"\d+ of \d+ samples to keep aside are those of the search or of calibration once more, "
        r"and to certify takes at least \d+",
        found.reason,
    )


def test_what_is_fresh_is_in_no_other_data():
    assert fresh(data(X[:20]), data(X[15:30]), data(X[:2])).tolist() == list(range(2, 15))


@pytest.mark.parametrize(
    ("allowed", "count", "reason"),
    [
        (0.001, 1000, "that takes at least "),
        (0.01, 500, "that takes at least "),
        (0.0, 1000, "no number of samples certifies a tolerance of 0"),
    ],
)
def test_nothing_is_kept_aside_where_it_cannot_be_enough(allowed, count, reason):
    found = divide(X[:count], allowed=allowed)
    assert len(found.search) == count
    assert not len(found.certification)
    assert found.reason.startswith(reason)


def test_metrics_that_count_nothing_take_a_hundred_samples():
    values = np.random.default_rng(1).random(1000)
    assert len(divide(X[:200], rows=values[:200], metric="psnr", allowed=0.1).certification) == 100
    assert not len(divide(X[:199], rows=values[:199], metric="psnr", allowed=0.1).certification)


def test_a_metric_with_bounds_takes_as_many_as_can_bound_it():
    values = np.random.default_rng(1).random(1000)
    metric = UserMetric("overlap", lambda outputs, labels: outputs, True, False, True, (0.0, 1.0))
    least = least_bounded(0.05, 0.95, reach=1.0)
    assert len(divide(X[: 2 * least], rows=values[: 2 * least], metric=metric, allowed=0.05).certification) == least
    assert not len(divide(X[: 2 * least - 1], rows=values[: 2 * least - 1], metric=metric, allowed=0.05).certification)


def test_the_division_is_kept_for_whoever_wants_to_check(tmp_path):
    found = replace(divide(), left_out=100)
    keep_division(found, tmp_path / "division.npz", data="d")
    stored = np.load(tmp_path / "division.npz")
    kept = kept_division(tmp_path / "division.npz", data="d")
    assert kept is not None
    for name in ("search", "certification"):
        assert stored[name].tolist() == getattr(kept, name).tolist() == getattr(found, name).tolist()
    assert kept.reason == found.reason == ""
    assert kept.left_out == found.left_out == 100
    assert kept_division(tmp_path / "division.npz", data="e") is None
    assert kept_division(tmp_path / "absent.npz", data="d") is None


def test_what_is_split_off_leaves_no_copies_behind():
    kept = without_shared(data(np.concatenate([X[:50], X[:10]])), data(X[:10]))
    assert len(kept) == 40
    with pytest.raises(DataError, match="no samples beside"):
        without_shared(data(X[:5]), data(X[:5]))
