"""Mean IoU against loops over classes, and against Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.metrics.table import open_metric

RNG = np.random.default_rng(8)
SCORES = RNG.random((9, 6, 5, 4)).astype(np.float32)
LABELS = RNG.choice([0, 1, 2, 3, 255], (9, 6, 5))


def miou(outputs: Array, labels: Array, spec: str = "miou", parts: int = 1) -> float:
    metric = open_metric(spec)
    batches = zip(np.array_split(outputs, parts), np.array_split(labels, parts), strict=True)
    return metric.combine(np.concatenate([metric.measure({"o": o}, y, None) for o, y in batches]))


def expected(guess: Array, labels: Array, classes: int) -> float:
    found = []
    for number in range(classes):
        known = (labels >= 0) & (labels < classes)
        one, other = (guess == number) & known, (labels == number) & known
        if (one | other).any():
            found.append((one & other).sum() / (one | other).sum())
    return float(np.mean(found))


@given(
    hnp.arrays(np.float32, (3, 4, 2, 3), elements=st.integers(-2, 2).map(float)),
    hnp.arrays(np.int64, (3, 4, 2), elements=st.sampled_from([-1, 0, 1, 2, 255])),
)
def test_it_is_that_over_all_positions(scores: Array, labels: Array) -> None:
    if len(set(labels[(labels >= 0) & (labels < 3)])) > 1:
        found = miou(scores, labels)
        assert found == pytest.approx(expected(scores.argmax(axis=-1), labels, 3), abs=1e-12)
        assert miou(scores, labels, parts=3) == found
        assert miou(np.moveaxis(scores, -1, 1), labels, "miou@axis=1") == found


def test_it_equals_that_of_keras(tensorflow: Any) -> None:
    import keras

    theirs = keras.metrics.MeanIoU(num_classes=4, ignore_class=255)
    theirs.update_state(LABELS, SCORES.argmax(axis=-1))
    assert miou(SCORES, LABELS) == pytest.approx(float(theirs.result()), abs=1e-6)
    binary = SCORES[..., :1]
    theirs = keras.metrics.BinaryIoU(target_class_ids=[0, 1], threshold=0.5)
    theirs.update_state(LABELS == 1, binary[..., 0])
    assert miou(binary, (LABELS == 1).astype(np.uint8)) == pytest.approx(float(theirs.result()), abs=1e-6)


def test_by_hand() -> None:
    # class 0: 1 of 3 positions, class 1: 1 of 2, class 2: 0 of 1; where the label is 255 nothing counts
    labels = np.asarray([[0, 0, 1, 0, 255]])
    guess = np.asarray([[0, 1, 1, 2, 0]])
    assert miou(np.eye(3)[guess], labels) == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)


def test_forms_of_labels_and_outputs() -> None:
    known = np.where(LABELS == 255, 0, LABELS)
    found = miou(SCORES, known)
    for labels in (known[..., None], known.astype(np.float32), np.eye(4)[known]):
        assert miou(SCORES, labels) == found
    assert miou(np.moveaxis(SCORES, -1, 1), np.moveaxis(np.eye(4)[known], -1, 1), "miou@axis=1") == found
    assert miou(SCORES.argmax(axis=-1), known) == found
    logits = np.log(SCORES[..., :1] / (1 - SCORES[..., :1]))
    assert miou(logits, known == 1, "miou@0") == miou(SCORES[..., :1], known == 1)


def test_rows_are_small() -> None:
    rows = open_metric("miou").measure({"o": SCORES}, LABELS, None)
    assert rows.shape == (9, 3, 4)
    assert rows.dtype == np.uint32


@pytest.mark.parametrize(
    ("outputs", "labels", "told"),
    [
        (SCORES, LABELS[:, :5], r"output has shape \(batch, 6, 5, 4\), labels have \(batch, 5, 5\)"),
        (SCORES, LABELS + 0.5, r"label 0.5 \(float64\) is not a class number|label \d+.5"),
        (SCORES, np.ones((9, 6, 5, 4)), "label rows are not one-hot"),
        (SCORES, np.full((9, 6, 5), 255), "there are: none; classes count from 0"),
        (SCORES[..., :1], LABELS % 2 * 255, "there are: 0; classes count from 0, so a mask of 0 and 255"),
        (np.full((9, 6, 5), 300), LABELS, r"class numbers 300..300; they must be in 0..254"),
    ],
)
def test_bad_labels(outputs: Array, labels: Array, told: str) -> None:
    with pytest.raises(DataError, match=told):
        miou(outputs, labels)
