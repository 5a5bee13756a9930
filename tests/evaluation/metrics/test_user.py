"""Functions of the user's as metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.plugins import load_function
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.metrics.user import user_metric

OUT = np.asarray([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0]])
LABELS = np.asarray([1, 1, 0])


def flagged(function: Callable[..., Any], **flags: object) -> Metric:
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


def test_the_fp32_outputs_for_each_sample() -> None:
    def off(outputs: Any, labels: Any, reference: Any) -> Any:
        return np.abs(outputs - reference).max(axis=1) + labels

    metric = flagged(off, needs_reference=True, higher_is_better=False)
    assert metric.needs_reference
    np.testing.assert_array_equal(metric.measure({"o": OUT}, LABELS, {"o": OUT + 2}), 2 + LABELS)
    both = flagged(lambda o, y, r: o["a"] - r["b"], needs_reference=True)
    np.testing.assert_array_equal(both.measure({"a": LABELS, "b": LABELS}, LABELS, {"a": LABELS, "b": LABELS}), [0] * 3)
    assert metric.key != flagged(off, needs_reference=False).key


@pytest.mark.parametrize("names", [["o"], ["o", "p"]])
def test_the_fp32_outputs_of_all_samples(names: list[str]) -> None:
    def correlation(outputs: Any, labels: Any, reference: Any) -> float:
        ours, theirs = (given if len(names) == 1 else given["o"] for given in (outputs, reference))
        return float(np.corrcoef(ours[:, 0], theirs[:, 1])[0, 1])

    metric = flagged(correlation, needs_reference=True, per_sample=False, needs_labels=False)
    rows = [
        metric.measure(dict.fromkeys(names, OUT[part]), None, dict.fromkeys(names, OUT[part] + 1))
        for part in (slice(0, 2), slice(2, 3))
    ]
    expected = np.corrcoef(OUT[:, 0], OUT[:, 1])[0, 1]
    assert metric.combine(np.concatenate(rows)) == pytest.approx(expected, abs=1e-12)


def test_a_function_that_does_not_take_the_fp32_outputs() -> None:
    metric = flagged(lambda outputs, labels: labels, needs_reference=True)
    with pytest.raises(DataError, match=r"mine:f: raised TypeError: .*takes 2 positional arguments but 3 were given"):
        metric.measure({"o": OUT}, LABELS, {"o": OUT})
