"""A metric that a hint names takes the outputs and labels that the one before did not."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.advice import with_alternative
from autoquant.evaluation.metrics.metric import require_labels
from autoquant.evaluation.metrics.table import METRICS, open_metric
from autoquant.model.model import InputSpec

RNG = np.random.default_rng(6)
OUTPUTS: Mapping[str, tuple[int, ...]] = {
    "classes": (12, 7),
    "few classes": (12, 3),
    "two classes": (12, 2),
    "column": (12, 1),
    "flat": (12,),
    "pooled": (12, 1, 1, 7),
    "sequence": (12, 6, 5),
    "steps": (12, 6, 1),
    "map": (12, 4, 6, 5),
    "mask": (12, 4, 6, 1),
    "channels first": (12, 5, 4, 6),
    "mask, channels first": (12, 1, 4, 6),
}
LABELS: Mapping[str, Array | None] = {
    "none": None,
    "binary": np.arange(12) % 2,
    "classes": np.arange(12) % 3,
    "sequences": RNG.integers(0, 2, (12, 6)),
    "maps": RNG.integers(0, 2, (12, 4, 6)),
    "values": RNG.normal(size=12),
    "images": RNG.normal(size=(12, 4, 6, 1)),
}
SPECS = [*METRICS, "agreement@axis=1", "miou@axis=1", "miou@0", "top1@output=other", "sqnr@output=first"]


def batches(shape: tuple[int, ...]) -> list[dict[str, Array]]:
    """Probabilities, logits and class numbers of a shape, alone and with another output behind."""
    logits = RNG.normal(0, 4, shape)
    probabilities = 1 / (1 + np.exp(-logits))
    alone = [{"first": array} for array in (probabilities, logits, RNG.integers(0, 3, shape))]
    return [*alone, *({**one, "other": RNG.normal(size=(12, 4))} for one in alone)]


def named(text: str) -> list[str]:
    """The metrics that a hint tells to use."""
    return re.findall(r"--metric ([^\s`,;]+)", text)


def refusal(spec: str, outputs: Mapping[str, Array], labels: Array | None) -> str | None:
    """The hint of a metric that does not take the outputs, as the scoring of the baseline has it."""
    metric = open_metric(spec)
    if metric.output not in ("", *outputs):
        return None
    scored = metric.scored(outputs)
    try:
        metric.measure(scored, labels, scored)
    except DataError as error:
        return with_alternative(error, metric, outputs, labels).hint
    return None


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("shape", OUTPUTS)
def test_hints_lead_to_metrics_that_work(shape: str, labels: str) -> None:
    for outputs in batches(OUTPUTS[shape]):
        for spec in SPECS:
            hint = refusal(spec, outputs, LABELS[labels])
            assert hint != ""
            for other in named(hint or ""):
                assert refusal(other, outputs, LABELS[labels]) is None, (spec, other)


@pytest.mark.parametrize("shape", OUTPUTS)
def test_what_missing_labels_lead_to_takes_any_output(shape: str) -> None:
    unlabelled = open_data((np.zeros((3, 2)), None), [InputSpec("input", np.dtype("float32"), (None, 2))])
    for metric in (one for one in METRICS.values() if one.needs_labels):
        with pytest.raises(DataError) as caught:
            require_labels(metric, unlabelled)
        assert named(caught.value.hint) == ["sqnr"]
    for outputs in batches(OUTPUTS[shape]):
        assert refusal("sqnr", outputs, None) is None


@pytest.mark.parametrize(
    ("spec", "shape", "labels", "told"),
    [
        ("top1", "map", "maps", ["miou"]),
        ("top1", "channels first", "maps", ["miou@axis=1"]),
        ("top1", "sequence", "none", ["agreement"]),
        ("top5", "few classes", "classes", ["top1"]),
        ("auc", "classes", "classes", ["top1"]),
        ("psnr", "classes", "classes", ["top1"]),
        ("top1", "mask", "images", ["mse"]),
        ("top1", "column", "values", ["mse"]),
        ("miou", "classes", "images", ["agreement"]),
    ],
)
def test_the_metric_that_fits_comes_first(spec: str, shape: str, labels: str, told: list[str]) -> None:
    assert named(refusal(spec, batches(OUTPUTS[shape])[0], LABELS[labels]) or "") == told


def test_the_same_metric_on_another_output() -> None:
    outputs = {"boxes": RNG.normal(size=(12, 6, 4)), "scores": RNG.random((12, 3)), "more": RNG.random((12, 9))}
    assert named(refusal("top1", outputs, LABELS["classes"]) or "") == ["top1@output=scores"]
    assert named(refusal("top5@output=scores", outputs, LABELS["classes"]) or "") == ["top5@output=more"]
