"""Groups of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.metrics.table import open_metric
from autoquant.model.model import InputSpec
from autoquant.tuning.certification.holdout import Groups, check_guard, groups_of

SPEC = InputSpec("x", np.dtype(np.float32), (None, 2))
X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([2, 0, 1, 1, 0, 2])


def opened(y: NDArray[Any] | None = Y, **more: Any) -> Dataset:
    return open_data({"x": X, **({} if y is None else {"y": y}), **more}, [SPEC])


@pytest.mark.parametrize("labels", [Y, Y[:, None], np.eye(3)[Y], Y.astype(np.float32)])
def test_classes_are_labels_in_any_of_their_forms(labels: NDArray[Any]) -> None:
    assert groups_of(opened(labels), "class").tolist() == Y.tolist()
    assert groups_of(opened(labels).subset(np.array([5, 1])), "class").tolist() == [0, 2]


def test_an_array_of_the_data_numbers_groups(tmp_path: Path) -> None:
    camera = np.array(["left", "left", "right", "left", "right", "right"])
    np.savez(tmp_path / "data.npz", x=X, y=Y, camera=camera)
    for data in (opened(camera=camera), open_data(tmp_path / "data.npz", [SPEC])):
        assert groups_of(data, "camera").tolist() == camera.tolist()
        assert groups_of(data.subset(np.array([0, 2])), "camera").tolist() == ["left", "right"]


@pytest.mark.parametrize(
    ("labels", "guard", "kind", "says"),
    [
        (None, "class", DataError, "has no labels"),
        (Y + 0.5, "class", DataError, "are no classes"),
        (Y, "camera", DataError, "has no array 'camera' with one value for each of its 6 samples"),
        (Y, "x", DataError, "has no array 'x' with one value"),
    ],
)
def test_arrays_that_are_no_groups(labels: NDArray[Any] | None, guard: str, kind: type[DataError], says: str) -> None:
    with pytest.raises(kind, match=says):
        groups_of(opened(labels), guard)


@pytest.mark.parametrize(
    ("labels", "everything", "unseen"),
    [([0, 2, 2], [2, 0, 1, 5, 0], ("1", "5")), (["left"], ["left", "right"], ("right",)), ([3, 4], [3], ())],
)
def test_groups_that_no_sample_is_of(
    labels: list[int | str], everything: list[int | str], unseen: tuple[str, ...]
) -> None:
    assert Groups.of(np.asarray(labels), np.asarray(everything)).unseen == unseen


def test_groups_of_a_function_are_its_labels_or_what_its_batches_name() -> None:
    data = open_data(lambda: iter([({SPEC.name: X, "camera": Y // 2}, Y)]), [SPEC])
    assert groups_of(data, "class").tolist() == Y.tolist()
    assert groups_of(data, "camera").tolist() == [label // 2 for label in Y.tolist()]
    with pytest.raises(DataError, match=r"yields no array 'ward' .*there is camera; else yield it beside the inputs"):
        groups_of(data, "ward")


@pytest.mark.parametrize(
    ("metric", "guard", "kind", "says"),
    [
        ("top1", "camera", DataError, "has no array 'camera'"),
        ("auc", "class", UsageError, "'auc' has no value for each sample"),
    ],
)
def test_metrics_that_cannot_be_guarded_are_told_before_the_search(
    metric: str, guard: str, kind: Any, says: str
) -> None:
    check_guard(opened(), "class", open_metric("top1"))
    with pytest.raises(kind, match=says):
        check_guard(opened(), guard, open_metric(metric))
