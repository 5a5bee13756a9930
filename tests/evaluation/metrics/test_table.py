from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.metric import require_labels, require_output
from autoquant.evaluation.metrics.table import METRICS, open_metric
from autoquant.model.model import InputSpec

SPEC = [InputSpec("input", np.dtype("float32"), (None, 2))]
CLASSES = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
PIXELS = np.random.default_rng(1).random((20, 4, 4, 1)).astype(np.float32)
CASES: dict[str, tuple[Array, Array | None]] = {
    "top1": (CLASSES, np.arange(20) % 7),
    "top5": (CLASSES, np.arange(20) % 7),
    "agreement": (CLASSES, None),
    "sqnr": (PIXELS, None),
    "miou": (np.random.default_rng(2).random((20, 4, 4, 7)), np.random.default_rng(3).integers(0, 8, (20, 4, 4))),
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
    with pytest.raises(DataError, match=f"metric {name}: needs labels; use `--metric sqnr`"):
        METRICS[name].measure({"out": CASES[name][0]}, None, None)
    unlabelled = open_data((np.zeros((3, 2)), None), SPEC)
    with pytest.raises(
        DataError, match=f"has no labels, which the metric '{name}' needs; add them, or use `--metric sqnr`"
    ):
        require_labels(METRICS[name], unlabelled)
    require_labels(METRICS[name], open_data((np.zeros((3, 2)), np.zeros(3)), SPEC))
    for name in ("agreement", "sqnr"):
        require_labels(METRICS[name], unlabelled)


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


def test_settings_in_any_order_and_the_output_at_the_end() -> None:
    metric = open_metric("agreement@axis=1@0@output=StatefulPartitionedCall:1")
    assert (metric.axis, metric.threshold, metric.output) == (1, 0.0, "StatefulPartitionedCall:1")
    assert metric.name == "agreement@axis=1@0@output=StatefulPartitionedCall:1"
    assert open_metric("sqnr@40").bounds == (0.0, 40.0)
    assert open_metric("sqnr@30") is METRICS["sqnr"]


OUTPUTS = {"a": np.asarray([[0.0, 1.0]]), "b": np.asarray([[1.0, 0.0]])}


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("top1", ["a"]),
        ("mse@output=b", ["b"]),
        ("agreement", ["a", "b"]),
        ("sqnr@output=b", ["b"]),
        ("numpy:add", ["a", "b"]),
    ],
)
def test_which_outputs_are_scored(spec: str, names: list[str]) -> None:
    assert list(open_metric(spec).scored(OUTPUTS)) == names


def test_an_output_of_a_function_comes_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(outputs, labels):\n    return outputs[:, 0] * labels\n")
    metric = open_metric(f"{file}:f@output=b:0")
    outputs = {"a": np.zeros((2, 3)), "b:0": np.asarray([[2.0], [3.0]])}
    np.testing.assert_array_equal(metric.measure(metric.scored(outputs), np.asarray([1, 2]), None), [2, 6])
    assert metric.key != open_metric(f"{file}:f").key


def test_an_output_that_is_not_there() -> None:
    require_output(open_metric("top1@output=scores"), ["boxes", "scores"])
    require_output(open_metric("top1"), ["boxes", "scores"])
    with pytest.raises(UsageError) as caught:
        require_output(open_metric("top1@output=score"), ["boxes", "anchors", "scores"])
    told = "--metric top1@output=score: the model has no output 'score'; its outputs, the nearest first: scores, "
    assert str(caught.value).startswith(told)


def test_which_metrics_are_of_classes() -> None:
    assert [name for name, metric in METRICS.items() if metric.of_classes] == ["top1", "top5", "agreement", "miou"]
    assert not open_metric(lambda outputs, labels: outputs).of_classes


def test_keys_tell_apart(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(outputs, labels):\n    return labels\ndef g(outputs, labels):\n    return labels\n")
    specs = [*METRICS, "top1@0", "top1@0.1234567", "top1@0.1234568", "agreement@0", f"{file}:f", f"{file}:g"]
    specs += ["agreement@axis=1", "agreement@output=a", "agreement@output=b", "mse@output=a", "miou@0", "sqnr@40"]
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
        ("auc@0", "'auc' has no threshold; leave out '@0'; top1, agreement, miou, sqnr have one"),
        ("sqnr@0", "'0' is not a number above 0"),
        ("sqnr@axis=1", "'sqnr' has no axis; leave out '@axis=1'"),
        ("miou@axis=0", "'0' is not the axis of the classes; write axis=1"),
        ("miou@axis=x", "'x' is not the axis of the classes"),
        ("agreement@0@1", "'agreement@0@1' says threshold twice"),
        ("top1@output=", "'top1@output=' names no output; write for example top1@output=scores"),
        ("top5@0", "'top5' has no threshold"),
        ("top1@", "'' is not a number"),
        ("top1@nan", "'nan' is not a number"),
    ],
)
def test_unknown_metrics(spec: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_metric(spec)
    assert str(caught.value).startswith(f"--metric: {told}")
