from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError, TrialError, UsageError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.plugins import load_function
from autoquant.evaluation.metrics.metric import Metric, require_labels
from autoquant.evaluation.metrics.table import METRICS, open_metric, user_metric
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
OUT = np.asarray([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0]])
LABELS = np.asarray([1, 1, 0])


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


def flagged(function: Callable[[Any, Any], Any], **flags: object) -> Metric:
    vars(function).update(flags)
    return user_metric("mine:f", function)


def test_values_of_samples() -> None:
    metric = open_metric(lambda outputs, labels: np.abs(outputs[:, 0] - labels))
    assert metric.per_sample and metric.higher_is_better and metric.needs_labels and not metric.needs_reference
    rows = metric.measure({"o": OUT}, LABELS, None)
    np.testing.assert_array_equal(rows, [0.0, 4.0, 0.0])
    assert metric.combine(rows) == pytest.approx(4 / 3)


def test_several_outputs_come_as_a_mapping() -> None:
    metric = open_metric(lambda outputs, labels: outputs["a"] + outputs["b"])
    np.testing.assert_array_equal(metric.measure({"a": LABELS, "b": LABELS}, LABELS, None), 2 * LABELS)


@pytest.mark.parametrize("outputs", [{"o": OUT}, {"o": OUT, "labels": OUT[:, 0]}])
def test_one_number_for_all(outputs: dict[str, np.ndarray]) -> None:
    calls = []

    def correlation(given: Any, labels: Any) -> float:
        calls.append(given)
        column = given if len(outputs) == 1 else given["o"]
        return float(np.corrcoef(column[:, 0], labels)[0, 1])

    metric = flagged(correlation, per_sample=False, higher_is_better=False)
    rows = [
        metric.measure({name: array[chosen] for name, array in outputs.items()}, LABELS[chosen], None)
        for chosen in (slice(0, 2), slice(2, 3))
    ]
    assert not calls and not metric.higher_is_better
    assert metric.combine(np.concatenate(rows)) == pytest.approx(np.corrcoef(OUT[:, 0], LABELS)[0, 1])
    assert len(calls) == 1


def test_without_labels() -> None:
    metric = flagged(lambda outputs, labels: outputs[:, 0] if labels is None else None, needs_labels=False)
    np.testing.assert_array_equal(metric.measure({"o": OUT}, None, None), OUT[:, 0])
    whole = flagged(lambda outputs, labels: outputs.sum(), needs_labels=False, per_sample=False)
    assert whole.combine(whole.measure({"o": OUT}, None, None)) == 15.0
    with pytest.raises(DataError, match="needs labels; set its needs_labels = False"):
        flagged(lambda outputs, labels: outputs[:, 0]).measure({"o": OUT}, None, None)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda outputs, labels: 0.5, "returned one number for 3 samples; return one value a sample, or set its attr"),
        (lambda outputs, labels: outputs, "returned shape (3, 2) for 3 samples; return (3,)"),
        (lambda outputs, labels: "good", "raised ValueError: could not convert string to float"),
        (lambda outputs: 1.0, "raised TypeError"),
    ],
)
def test_wrong_functions(function: Callable[..., Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        user_metric("mine:f", function).measure({"o": OUT}, LABELS, None)
    assert caught.value.where == "mine:f"
    assert told in str(caught.value)


def test_a_whole_score_must_be_one_number() -> None:
    metric = flagged(lambda outputs, labels: outputs, per_sample=False)
    with pytest.raises(DataError, match=r"returned shape \(3, 2\), and per_sample = False; return one number"):
        metric.combine(metric.measure({"o": OUT}, LABELS, None))


def test_a_wrong_attribute() -> None:
    with pytest.raises(DataError, match="its attribute 'higher_is_better' is 'yes'; make it True or False"):
        flagged(lambda outputs, labels: 0.0, higher_is_better="yes")


def test_an_exception_keeps_its_message_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(outputs, labels):\n    x = 1\n    return outputs['nothing']\n")
    metric = user_metric("mine:f", load_function(f"{file}:f"))
    with pytest.raises(DataError, match=r"mine:f: raised IndexError: .*mine\.py:3\)"):
        metric.measure({"o": OUT}, LABELS, None)


def test_nan_fails_the_trial() -> None:
    metric = user_metric("mine:f", lambda outputs, labels: outputs[:, 0])
    with pytest.raises(TrialError, match="output 'o' is NaN"):
        metric.measure({"o": OUT * np.nan}, LABELS, None)
    with pytest.raises(TrialError, match="mine:f returned NaN"):
        user_metric("mine:f", lambda outputs, labels: labels * np.nan).measure({"o": OUT}, LABELS, None)
