"""Which samples a trial changed, against counts by hand and by NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.array import Array
from autoquant.errors import RunError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.classes import sample_classes, sample_labels
from autoquant.evaluation.metrics.metric import Score
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring import changes
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.changes import (
    ChangedSample,
    ClassChanges,
    Confusion,
    SampleChanges,
    SampleClasses,
    sample_changes,
)
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.formats.codec import load, save
from autoquant.model.model import InputSpec

SPEC = InputSpec("x", np.dtype(np.float32), (None, 3))


def subset_of(
    labels: Any, before: Any, margins: Any, *, metric: str = "top1", chosen: Array | None = None
) -> EvaluationSubset:
    """Samples with these labels, to which FP32 gave these classes with these margins; of them those that are chosen."""
    labels, before = np.asarray(labels), np.asarray(before)
    data = open_data((np.zeros((len(labels), 3), np.float32), labels), [SPEC])
    rows = labels == before
    score = Score(float(rows.mean()), rows)
    baseline = Baseline("", score, margins=np.asarray(margins), classes=before, labels=labels)
    part = None if chosen is None else data.subset(chosen)
    return EvaluationSubset.of(data, open_metric(metric), baseline, part)


def test_changes_by_hand() -> None:
    """Samples 0 and 3 become wrong, 3 nearer to another class; 1 becomes right; 4 is wrong in both."""
    labels, before, after = [0, 1, 2, 0, 1], [0, 2, 2, 0, 0], np.array([1, 1, 2, 2, 2])
    subset = subset_of(labels, before, [0.5, 0.25, 0.75, 0.125, 1.0])
    found = sample_changes(subset, np.asarray(labels) == after, after)
    assert found == SampleChanges(
        samples=5,
        worse=2,
        better=1,
        changed=(
            ChangedSample(3, 1.0, label=0, before=0, after=2, margin=0.125),
            ChangedSample(0, 1.0, label=0, before=0, after=1, margin=0.5),
            ChangedSample(1, -1.0, label=1, before=2, after=1, margin=0.25),
        ),
        answers=4,
        classes=(ClassChanges(0, samples=2, worse=2, better=0), ClassChanges(1, samples=2, worse=0, better=1)),
        confusions=(Confusion(0, 0, 1, 1), Confusion(0, 0, 2, 1), Confusion(1, 0, 2, 1), Confusion(1, 2, 1, 1)),
    )


def test_samples_are_numbered_as_in_the_data_whatever_part_of_it_is_searched() -> None:
    labels, before = np.arange(10) % 3, np.arange(10) % 3
    chosen = np.array([2, 5, 7])
    subset = subset_of(labels, before, np.linspace(1, 0, 10), chosen=chosen)
    after = (labels[chosen] + 1) % 3
    found = sample_changes(subset, np.zeros(3, bool), after)
    assert found is not None
    assert [one.sample for one in found.changed] == [7, 5, 2]
    assert [(one.label, one.before, one.after) for one in found.changed] == [(1, 1, 2), (2, 2, 0), (2, 2, 0)]


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_counts_add_up(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, before, after = random.integers(0, 4, (3, count))
    found = sample_changes(subset_of(labels, before, random.random(count)), labels == after, after)
    assert found is not None
    right, now = labels == before, labels == after
    assert (found.worse, found.better) == (int((right & ~now).sum()), int((~right & now).sum()))
    assert found.answers == int((before != after).sum()) == sum(one.samples for one in found.confusions)
    assert sum(one.worse for one in found.classes) == found.worse
    for one in found.classes:
        assert one.samples == int((labels == one.label).sum())
    margins = [one.margin for one in found.changed if one.drop > 0]
    assert margins == sorted(margins, key=lambda margin: margin or 0.0)


def test_of_many_the_nearest_are_listed_and_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST", 2)
    margins = np.array([0.5, 0.1, 0.4, 0.2])
    found = sample_changes(subset_of([0] * 4, [0] * 4, margins), np.zeros(4, bool), np.ones(4, np.int64))
    assert found is not None
    assert [one.sample for one in found.changed] == [1, 3]
    assert found.worse == 4


def test_a_metric_of_values_lists_the_largest_changes() -> None:
    data = open_data((np.zeros((3, 3), np.float32), np.zeros((3, 3))), [SPEC])
    baseline = Baseline("", Score(1.0, np.array([1.0, 2.0, 3.0])))
    subset = EvaluationSubset.of(data, open_metric("mse"), baseline)
    found = sample_changes(subset, np.array([1.5, 2.0, 2.75]), None)
    assert found == SampleChanges(3, 1, 1, (ChangedSample(0, 0.5), ChangedSample(2, -0.25)))


def test_a_metric_without_a_number_for_each_sample_has_no_changes() -> None:
    assert sample_changes(subset_of([0, 1], [0, 1], [1.0, 1.0], metric="miou"), np.zeros((2, 2)), None) is None


def test_classes_are_those_of_the_highest_score_and_none_where_samples_have_several() -> None:
    found = SampleClasses(open_metric("top1"), 3)
    found.put(np.array([2, 0]), {"y": np.array([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])})
    found.put(slice(1, 2), {"y": np.array([[0.0, 3.0, 9.0]])})
    assert found.array is not None
    assert found.array.tolist() == [0, 2, 1]
    several = SampleClasses(open_metric("agreement"), 1)
    several.put(slice(1), {"y": np.zeros((1, 2, 3))})
    several.put(slice(1), {"y": np.zeros((1, 3))})
    assert several.array is None
    values = SampleClasses(open_metric("mse"), 1)
    values.put(slice(1), {"y": np.zeros((1, 3))})
    assert values.array is None


@pytest.mark.parametrize(
    ("output", "classes"),
    [
        (np.array([[0.1, 0.9], [0.8, 0.2]]), [1, 0]),
        (np.array([[0.25], [0.75]]), [0, 1]),
        (np.array([0.25, 0.75]), [0, 1]),
        (np.array([3, 1]), [3, 1]),
        (np.array([[3, 1]]), None),
        (np.zeros((2, 4, 4, 3)), None),
    ],
)
def test_classes_of_outputs_of_every_form(output: Array, classes: list[int] | None) -> None:
    found = sample_classes(open_metric("agreement"), {"y": output})
    assert (None if found is None else found.tolist()) == classes


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ([2, 0], [2, 0]),
        ([[2.0], [0.0]], [2, 0]),
        ([[0, 0, 1], [1, 0, 0]], [2, 0]),
        ([[0.5, 0.5], [1, 0]], None),
        ([["a"], ["b"]], None),
    ],
)
def test_labels_of_every_form(labels: Any, numbers: list[int] | None) -> None:
    found = sample_labels(np.array(labels))
    assert (None if found is None else found.tolist()) == numbers


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    after = np.array([1, 1])
    found = sample_changes(subset_of([0, 1], [0, 0], [0.5, 0.25]), np.array([False, True]), after)
    assert found is not None
    save(found, tmp_path / "changes.json")
    assert load(SampleChanges, tmp_path / "changes.json", RunError, hint="") == found
