from __future__ import annotations

import re

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError, ModelError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import class_labels
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring import checks
from autoquant.evaluation.scoring.checks import (
    Predictions,
    check_deterministic,
    check_finite,
    check_label_offset,
    check_not_one_class,
)

RANDOM = np.random.default_rng(0)
TOP1 = open_metric("top1")


def scores_of(predictions: Array, classes: int) -> Array:
    return np.eye(classes)[predictions] + RANDOM.random((len(predictions), classes)) * 0.1


def predictions_of(predictions: Array, classes: int) -> Predictions:
    return Predictions.of("a", scores_of(predictions, classes), TOP1)


def check_not_constant(outputs: Outputs) -> None:
    low, high = ({name: getattr(array, end)(axis=0) for name, array in outputs.items()} for end in ("min", "max"))
    checks.check_not_constant(low, high, len(next(iter(outputs.values()))))


def test_the_same_twice() -> None:
    one = {"a": RANDOM.normal(size=(4, 3)), "b": np.zeros((4, 0))}
    check_deterministic(one, {"a": one["a"] * (1 + 1e-6), "b": one["b"]})
    for changed in (one["a"] * (1 + 1e-4), one["a"] * np.nan):
        with pytest.raises(ModelError, match=r"output 'a': two runs of the same batch differ by .*training=False"):
            check_deterministic(one, {"a": changed, "b": one["b"]})


def test_small_next_to_large_outputs_may_differ_more() -> None:
    check_deterministic({"a": np.asarray([1e-6, 1000.0])}, {"a": np.asarray([2e-6, 1000.0])})


def test_finite() -> None:
    check_finite({"a": np.ones((3, 2)), "b": np.ones(3), "c": np.ones(3, bool), "d": np.ones(3, int)}, range(3))
    bad = np.ones((3, 2))
    bad[1, 1] = np.inf
    with pytest.raises(ModelError, match=r"output 'b': .* for 1 of 3 samples \(first: 7\); is the preprocessing"):
        check_finite({"a": np.ones(3), "b": bad}, np.asarray([5, 7, 8, 9]))


@pytest.mark.parametrize("dtype", [object, "S", "U"])
def test_text_is_no_number(dtype: str | type) -> None:
    text = np.asarray([b"cat", b"dog"], dtype)
    with pytest.raises(ModelError, match="output 'classes': holds text; choose others with --outputs"):
        check_finite({"scores": np.ones((2, 3)), "classes": text}, range(2))


def test_constant_outputs() -> None:
    row = RANDOM.normal(size=(1, 5))
    with pytest.raises(DataError, match="output 'a': is the same for all 6 samples; is the preprocessing"):
        check_not_constant({"a": np.repeat(row, 6, axis=0) * (1 + 1e-7 * RANDOM.random((6, 1)))})
    with pytest.raises(DataError, match="is the same for all 6 samples"):
        check_not_constant({"a": np.zeros(6)})
    check_not_constant({"a": row})  # one sample cannot differ from itself
    check_not_constant({"a": RANDOM.normal(size=(20, 1))})
    check_not_constant({"anchors": np.repeat(row, 6, axis=0), "boxes": RANDOM.normal(size=(6, 4))})
    with pytest.raises(DataError, match="output 'a', output 'b': is the same for all 6 samples"):
        check_not_constant({"a": np.repeat(row, 6, axis=0), "b": np.ones((6, 0))})


@pytest.mark.parametrize("values", [np.asarray([False, True]), np.asarray([-128, 127], np.int8)])
def test_constant_outputs_of_other_types(values: Array) -> None:
    check_not_constant({"a": values})
    with pytest.raises(DataError, match="is the same for all 2 samples"):
        check_not_constant({"a": np.repeat(values[:1], 2)})


@pytest.mark.parametrize("shape", [(12, 3), (12, 1, 1, 3)])
def test_always_the_same_class(shape: tuple[int, ...]) -> None:
    scores = scores_of(np.full(12, 2), 3).reshape(shape)
    check_not_constant({"a": scores})
    for labels in (None, np.arange(12) % 3, np.eye(3)[np.arange(12) % 3]):
        with pytest.raises(DataError, match="predicts class 2 for all 12 samples; is the preprocessing"):
            check_not_one_class(Predictions.of("a", scores, TOP1), labels)
    check_not_one_class(
        Predictions.of("a", scores, TOP1), np.repeat([2, 0], [11, 1])
    )  # nearly all labels are one class
    check_not_one_class(Predictions.of("a", scores[:9], TOP1))  # may be chance
    check_not_one_class(predictions_of(np.repeat([2, 1], 6), 3))
    check_not_one_class(Predictions.of("a", RANDOM.random((12, 1)), TOP1))


LABELS = RANDOM.integers(1, 9, 60)


@pytest.mark.parametrize(
    ("predictions", "labels", "classes", "hint"),
    [
        (LABELS - 1, np.append(LABELS[1:], 10), 10, "--label-offset -1"),  # 1..10: by the range alone
        (LABELS - 1, LABELS, 10, "--label-offset -1"),
        (LABELS + 1, LABELS, 10, "--label-offset 1"),
        (LABELS + 1, LABELS, 1001, "--label-offset 1"),
        (np.where(np.arange(60) < 3, LABELS + 1, LABELS - 1), LABELS, 1001, "--label-offset 1"),
        (LABELS, LABELS + 5, 10, "--label-offset, e.g. -1"),
    ],
)
def test_offsets_are_found(predictions: Array, labels: Array, classes: int, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        check_label_offset(predictions_of(predictions, classes), labels)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("predictions", "labels", "classes"),
    [
        (LABELS, LABELS, 10),
        (LABELS, LABELS, 1001),
        (RANDOM.integers(0, 10, 60), LABELS, 10),  # at chance, shifted or not
        (1 - LABELS % 2, LABELS % 2, 2),  # classes in the wrong order, not shifted
        (np.where(np.arange(60) < 30, LABELS, LABELS + 1), LABELS, 10),  # shifting is no better
        (LABELS[:4] - 1, LABELS[:4], 10),  # too few
    ],
)
def test_no_false_alarm(predictions: Array, labels: Array, classes: int) -> None:
    check_label_offset(predictions_of(predictions, classes), labels)


def test_other_tasks_have_no_offset() -> None:
    for labels in (RANDOM.random(60), np.zeros((60, 4), int)):
        check_label_offset(Predictions.of("a", RANDOM.random((60, 4)), TOP1), labels)


def chance_warning(predictions: Array, labels: Array, classes: int, metric: str = "top1") -> str | None:
    scores = predictions[:, None] * 1.0 if classes == 1 else scores_of(predictions, classes)
    truth = class_labels(labels, classes, metric)
    return checks.chance_warning(Predictions.of("a", scores, open_metric(metric)), truth)


def test_a_baseline_at_chance_is_worth_a_warning() -> None:
    labels = np.arange(60) % 3
    warning = chance_warning(np.zeros(60, int), labels, 3)
    assert warning is not None and "0.333 on 60 samples; always saying the most frequent class would give" in warning
    assert chance_warning(labels, labels, 3) is None
    assert chance_warning(np.zeros(60, int), np.zeros(60, int), 3) is None  # nothing can be told
    assert chance_warning(labels[:9], labels[9:18], 3) is None  # too few


TEN = np.arange(200) % 10
RARE = np.arange(200) % 10 == 0  # one in ten


def forms(labels: Array, classes: int) -> list[Array]:
    """Class numbers, the same as floats, in a column, and one-hot."""
    return [labels, labels.astype(np.float32), labels[:, None], np.eye(max(classes, 2), dtype=np.float32)[labels]]


@pytest.mark.parametrize("form", range(4), ids=["numbers", "floats", "column", "one-hot"])
@pytest.mark.parametrize(
    ("predictions", "labels", "classes"),
    [
        (TEN, np.where(np.arange(200) < 23, TEN, (TEN + 1 + np.arange(200) // 20 % 9) % 10), 10),  # 0.115
        (TEN % 2, np.repeat(np.arange(2), 100), 2),
        (TEN % 2, np.repeat(np.arange(2), 100), 1),
        (RARE[::-1].astype(int), (np.arange(200) % 9 == 3).astype(int), 2),
    ],
    ids=["ten classes", "two", "a single column", "one class in ten"],
)
def test_labels_of_other_samples_prove_nothing(predictions: Array, labels: Array, classes: int, form: int) -> None:
    warning = chance_warning(predictions, forms(labels, classes)[form], classes)
    assert warning is not None
    assert "proves nothing; labels in random order give" in warning or "most frequent class" in warning


def test_the_warning_has_the_figures() -> None:
    labels = np.where(np.arange(200) < 23, TEN, (TEN + 1 + np.arange(200) // 20 % 9) % 10)
    warning = chance_warning(TEN, labels, 10)
    assert warning is not None and warning.startswith("the FP32 model's top-1 is 0.115 on 200 samples: that proves no")
    # Binomial(200, 0.1) is 23 or more with a probability of 0.27.
    found = re.search(r"random order give (0\.\d+), and as much or more in (\d+)% of 500 orders", warning)
    assert found is not None and float(found[1]) == pytest.approx(0.1, abs=0.005) and 20 <= int(found[2]) <= 35


@pytest.mark.parametrize(
    ("predictions", "labels", "classes", "metric"),
    [
        (np.where(np.arange(200) % 4 == 0, TEN, 0), TEN, 10, "top1"),  # 0.325: weak, but no chance
        (np.where(np.arange(20) % 3 == 0, TEN[:20], (TEN[:20] + 1) % 10), TEN[:20], 10, "top1"),
        (TEN[:12], TEN[:12], 10, "top1"),
        (np.where(np.arange(200) < 100, RARE, False).astype(int), RARE.astype(int), 2, "top1"),  # 0.95; 0.9 by guessing
        (np.where(np.arange(200) < 100, RARE, False).astype(int), RARE.astype(int), 1, "top1"),
        (np.arange(200), np.where(np.arange(200) < 8, np.arange(200), 200 + np.arange(200)), 1000, "top1"),
        (np.where(np.arange(200) % 3 == 0, TEN, 0), TEN, 10, "top5"),
    ],
)
def test_weak_models_and_few_samples_pass(predictions: Array, labels: Array, classes: int, metric: str) -> None:
    assert chance_warning(predictions, labels, classes, metric) is None
