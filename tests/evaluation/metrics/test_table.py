from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.metric import require_labels
from autoquant.evaluation.metrics.table import METRICS, open_metric
from autoquant.model.model import InputSpec

SPEC = [InputSpec("input", np.dtype("float32"), (None, 2))]
CLASSES = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
PIXELS = np.random.default_rng(1).random((20, 4, 4, 1)).astype(np.float32)
CASES = {
    "top1": (CLASSES, np.arange(20) % 7),
    "top5": (CLASSES, np.arange(20) % 7),
    "agreement": (CLASSES, None),
    "mse": (PIXELS, PIXELS[::-1].copy()),
    "psnr": (PIXELS, PIXELS[::-1].copy()),
    "auc": (CLASSES[:, :1], np.arange(20) % 2),
}


@pytest.mark.parametrize("name", METRICS)
def test_the_score_does_not_depend_on_the_batches(name: str) -> None:
    metric = METRICS[name]
    outputs, labels = CASES[name]
    reference = {"out": outputs[:, ::-1]}
    whole = metric.measure({"out": outputs}, labels, reference)
    parts = [
        metric.measure(
            {"out": outputs[i : i + 6]},
            None if labels is None else labels[i : i + 6],
            {"out": reference["out"][i : i + 6]},
        )
        for i in range(0, 20, 6)
    ]
    assert metric.name == name
    assert len(whole) == 20 and (not metric.per_sample or whole.shape == (20,))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    if metric.per_sample:
        assert metric.combine(whole) == pytest.approx(whole.mean(), abs=1e-12)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.needs_labels])
def test_missing_labels(name: str) -> None:
    with pytest.raises(DataError, match=f"metric {name}: needs labels; use `--metric agreement`"):
        METRICS[name].measure({"out": CASES[name][0]}, None, None)
    unlabelled = open_data((np.zeros((3, 2)), None), SPEC)
    with pytest.raises(DataError, match=f"has no labels, which the metric '{name}' needs; .*--metric agreement"):
        require_labels(METRICS[name], unlabelled)
    require_labels(METRICS[name], open_data((np.zeros((3, 2)), np.zeros(3)), SPEC))
    require_labels(METRICS["agreement"], unlabelled)


def test_by_name_by_module_and_as_a_function() -> None:
    assert open_metric("top1") is METRICS["top1"]
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["mse"]
    assert open_metric("numpy:hypot").name == "numpy:hypot"
    assert open_metric(np.hypot).name == "numpy:hypot"
    assert "<lambda> True True True None " in open_metric(lambda outputs, labels: outputs).key


def test_a_moved_threshold() -> None:
    logits, labels = np.asarray([[-3.0], [0.4], [2.0], [-0.1]]), np.asarray([0, 1, 1, 1])
    np.testing.assert_array_equal(open_metric("top1@0").measure({"o": logits}, labels, None), [1, 1, 1, 0])
    agreement = open_metric("agreement@0").measure({"o": logits}, None, {"o": -logits})
    np.testing.assert_array_equal(agreement, [0, 0, 0, 0])
    assert open_metric("top1@0").name == "top1@0"
    assert open_metric("top1@0.5") is METRICS["top1"]


def test_which_metrics_are_of_classes() -> None:
    assert [name for name, metric in METRICS.items() if metric.of_classes] == ["top1", "top5", "agreement"]
    assert not open_metric(lambda outputs, labels: outputs).of_classes


def test_keys_tell_apart(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(outputs, labels):\n    return labels\ndef g(outputs, labels):\n    return labels\n")
    specs = [*METRICS, "top1@0", "top1@0.1234567", "top1@0.1234568", "agreement@0", f"{file}:f", f"{file}:g"]
    keys = [open_metric(spec).key for spec in specs]
    assert len(set(keys)) == len(specs)
    assert [open_metric(spec).key for spec in specs] == keys


def test_the_key_of_an_edited_function_is_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(outputs, labels):\n    return labels\n")
    before = open_metric(f"{file}:f").key
    file.write_text("def f(outputs, labels):\n    return labels + 1\n")
    assert open_metric(f"{file}:f").key != before


def test_the_key_sees_the_flags() -> None:
    def f(outputs: object, labels: object) -> object:
        return labels

    before = open_metric(f).key
    f.higher_is_better = False  # type: ignore[attr-defined]
    assert open_metric(f).key != before


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("top-1", "unknown 'top-1'; did you mean 'top1'?"),
        ("accuracy", "unknown 'accuracy'"),
        ("auc@0", "'auc' has no threshold"),
        ("top5@0", "'top5' has no threshold"),
        ("top1@", "'' is not a number"),
        ("top1@nan", "'nan' is not a number"),
    ],
)
def test_unknown_metrics(spec: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_metric(spec)
    assert str(caught.value).startswith(f"--metric: {told}")
