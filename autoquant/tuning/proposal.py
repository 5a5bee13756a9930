"""A look at a model and its data before any search: the target, metric and preprocessing that fit them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, ModelError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.engines.engine import Runner, run_batch
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.advice import CANDIDATES
from autoquant.evaluation.metrics.metric import Metric, Score, score_of
from autoquant.evaluation.metrics.table import open_metric
from autoquant.formats.space_toml import load_space
from autoquant.model.model import is_lite
from autoquant.targets.table import TARGETS
from autoquant.tuning.events import OPENING, Listener, progress, reporter
from autoquant.tuning.inputs import Inputs, model_of, open_inputs
from autoquant.tuning.study.choices import LITERT, TENSORFLOW, default_space
from autoquant.tuning.study.request import SearchRequest

SAMPLES = 256
"""Samples that are looked at, from all over the data."""
WITHOUT_LABELS = ("agreement", "sqnr")
PIXELS = 255.0
READINGS: tuple[Mapping[str, Any], ...] = (
    MappingProxyType({"scale": "1/255"}),
    MappingProxyType({"preprocess": "tf"}),
    MappingProxyType({"preprocess": "torch"}),
    MappingProxyType({"preprocess": "caffe"}),
)
"""What images of 0 to 255 may need before the model takes them."""
OF_UNIT: tuple[Mapping[str, Any], ...] = (
    MappingProxyType({"scale": 255.0}),
    MappingProxyType({"scale": 2.0, "mean": 1.0}),
)
"""The same where they are from 0 to 1."""
CLEARLY = 3.0
"""Standard errors by which another preprocessing must score better before it is proposed."""


@dataclass(frozen=True)
class Proposal:
    """What fits a model and its data, with what was seen of them.

    `target` fits where none was asked for; `refused` says why another does not. `metric` takes the outputs and, where
    it needs them, the labels. `score` is that of the FP32 model on the samples that were looked at, None where it has
    none. `reading` are options of the preprocessing with which the score is clearly better than `plain`, the score of
    the data as they are. `low` and `high` are the least and the largest value in the data before any preprocessing.
    """

    inputs: Inputs
    metric: Metric
    score: Score | None
    samples: int
    low: float
    high: float
    labels: Array | None
    refused: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    plain: Score | None = None


def propose(given: Mapping[str, Any], listener: Listener) -> Proposal:
    """Look at the model and the data of a request, of which `given` are some fields.

    Raises InputError where they cannot be opened, or no target can quantize the model.
    """
    inputs, refused = _opened(given, listener)
    data = inputs.splits.evaluation
    seen = data.spread(SAMPLES)
    report = reporter(listener, "running the model")
    engine = open_engine(TARGETS[inputs.target.name].runtime)
    with closing(engine.open_graph(inputs.model.program)) as runner:
        first = next(seen.batches(inputs.request.batch_size))
        metric = _metric(run_batch(runner, first), first.labels)
        score = _scored(runner, seen, metric, inputs.request.batch_size)
        low, high = _ends(seen, inputs.request.batch_size)
        found = Proposal(inputs, metric, score, len(seen), low, high, first.labels, refused)
        if not given.keys() & {"preprocess", "scale", "mean", "std"} and metric.needs_labels and data.front is None:
            found = _with_reading(found, runner, seen, listener)
    report(1, 1)
    return found


def _opened(given: Mapping[str, Any], listener: Listener) -> tuple[Inputs, Mapping[str, str]]:
    """Model and data opened for the first target that takes the model, and why others before it do not."""
    likely = [LITERT] if is_lite(given["model"]) or given.keys() & {"profile", "integer_only"} else [TENSORFLOW, LITERT]
    targets = [given["target"]] if "target" in given else likely
    refused: dict[str, str] = {}
    for target in targets:
        # Takes any outputs and needs no labels: which metric fits is found out from them.
        request = SearchRequest(**{**given, "target": target, "metric": "sqnr"})
        request.check_named()
        reporter(listener, OPENING)
        try:
            model = model_of(request)
            return open_inputs(request, load_space(default_space(target)), model, listener), refused
        except ModelError as error:
            if target == targets[-1]:
                raise
            refused[target] = f"{error.where}: {error.what}"
    raise AssertionError("there is a target")


def _metric(outputs: Outputs, labels: Array | None) -> Metric:
    """The first metric that takes a batch of outputs and labels; without labels, or where none does, one of FP32."""
    array = next(iter(outputs.values()))
    if labels is not None:
        for name in CANDIDATES:
            metric = open_metric(name)
            if metric.needs_labels and _measured(metric, outputs, labels) is not None:
                return open_metric(_variant(name, array, labels))
    scores_of_classes = array.dtype.kind in "iub" or (array.ndim == 2 and array.shape[1] > 1)
    return open_metric("agreement" if scores_of_classes else "sqnr")


def _variant(name: str, array: Array, labels: Array) -> str:
    """The same metric as these values want it: a single column beyond 0 to 1 holds logits, images have a psnr."""
    single = array.size == len(array) and array.dtype.kind == "f"
    if name == "top1" and single and (array.min() < 0.0 or array.max() > 1.0):
        return "top1@0"
    return "psnr" if name == "mse" and labels.ndim >= 3 else name


def _measured(metric: Metric, outputs: Outputs, labels: Array | None) -> Array | None:
    """The rows of a batch; None where the metric cannot take it."""
    try:
        return metric.measure(metric.scored(outputs), labels, metric.reference(outputs))
    except (DataError, TrialError):
        return None


def _scored(runner: Runner, data: Dataset, metric: Metric, batch_size: int) -> Score | None:
    """The score of the FP32 model; None where there is none, as of outputs that are not finite."""
    rows = []
    try:
        for batch in data.batches(batch_size):
            outputs = run_batch(runner, batch)
            rows.append(metric.measure(metric.scored(outputs), batch.labels, metric.reference(outputs)))
        return score_of(metric, np.concatenate(rows))
    except (DataError, TrialError):
        return None


def _ends(data: Dataset, batch_size: int) -> tuple[float, float]:
    """The least and the largest value of inputs of numbers, before any preprocessing; NaN where there are none."""
    arrays = [
        raw.inputs[spec.name]
        for raw in data.source.read(data.indices, batch_size)
        for spec in data.inputs
        if raw.inputs[spec.name].dtype.kind in "iuf"
    ]
    if not arrays:
        return float("nan"), float("nan")
    return float(min(array.min() for array in arrays)), float(max(array.max() for array in arrays))


def _with_reading(found: Proposal, runner: Runner, data: Dataset, listener: Listener) -> Proposal:
    """With the preprocessing that scores best, where it is clearly better than none."""
    tried = list(_possible(found))
    scores: list[tuple[Mapping[str, Any], Score]] = []
    for number, options in enumerate(tried):
        progress(listener, "trying preprocessing", number, len(tried))
        numbers = {name: value for name, value in options.items() if name != "preprocess"}
        other = replace(data, preprocess=open_preprocess(options.get("preprocess"), **numbers))
        score = _scored(runner, other, found.metric, found.inputs.request.batch_size)
        if score is not None and _is_better(score, found.score, found.metric):
            scores.append((options, score))
    if not scores:
        return found
    sign = 1.0 if found.metric.higher_is_better else -1.0
    options, best = max(scores, key=lambda pair: sign * pair[1].value)
    return replace(found, reading=options, score=best, plain=found.score)


def _possible(found: Proposal) -> Iterator[Mapping[str, Any]]:
    """What data of this range may need."""
    if found.low >= 0.0 and 1.0 < found.high <= PIXELS and found.high > PIXELS / 4:
        shapes = [spec.shape for spec in found.inputs.model.inputs]
        coloured = len(shapes) == 1 and shapes[0] is not None and shapes[0][-1] == 3
        yield from (one for one in READINGS if coloured or one.get("preprocess") not in ("torch", "caffe"))
    elif found.low >= 0.0 and found.high <= 1.0:
        yield from OF_UNIT


def _is_better(score: Score, plain: Score | None, metric: Metric) -> bool:
    """Whether a score is better than that of the data as they are by more than chance makes it."""
    if plain is None or not metric.per_sample or len(score.rows) != len(plain.rows):
        return plain is None
    gains = np.asarray(score.rows, np.float64) - np.asarray(plain.rows, np.float64)
    gains = gains if metric.higher_is_better else -gains
    return bool(gains.mean() > CLEARLY * gains.std() / np.sqrt(len(gains)) and gains.mean() > 0.0)
