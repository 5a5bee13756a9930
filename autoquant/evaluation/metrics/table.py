"""The metrics by name, and those that a user wrote as functions. To add one: a function in builtin.py, a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError, UsageError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.plugins import load_function, name_of, nearest, source_key, user_error
from autoquant.evaluation.metrics.builtin import (
    agreement,
    area_under_curve,
    mean_squared_error,
    peak_signal_to_noise,
    top_k,
)
from autoquant.evaluation.metrics.metric import Metric, mean

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "top1": top_k("top1"),
        "top5": top_k("top5", k=5),
        "agreement": agreement(),
        "mse": mean_squared_error(),
        "psnr": peak_signal_to_noise(),
        "auc": area_under_curve(),
    }
)
WITH_THRESHOLD: Mapping[str, Callable[..., Metric]] = MappingProxyType({"top1": top_k, "agreement": agreement})
OUTPUT = "output "
LABELS = "labels"
FLAGS = ("higher_is_better", "needs_labels", "per_sample")
Call = Callable[[Outputs, Array | None], Array]


def open_metric(spec: str | Callable[..., Any]) -> Metric:
    """A metric by name, 'module:function', or function.

    'top1@0' and 'agreement@0' move the threshold of a model with a single output column from 0.5, which is for
    probabilities, to 0, which is for logits, or elsewhere. Raises UsageError for an unknown name, DataError for a
    function that is not there.
    """
    if not isinstance(spec, str):
        return user_metric(name_of(spec), spec)
    if ":" in spec:
        return user_metric(spec, load_function(spec))
    name, at, threshold = spec.partition("@")
    if name not in METRICS:
        raise UsageError("--metric", f"unknown '{name}'", hint=nearest(name, [*METRICS, "module:function"]))
    if not at:
        return METRICS[name]
    if name not in WITH_THRESHOLD:
        raise UsageError("--metric", f"'{name}' has no threshold", hint="top1@0 and agreement@0 have")
    value = _threshold(threshold)
    return METRICS[name] if value == METRICS[name].threshold else WITH_THRESHOLD[name](spec, threshold=value)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise UsageError("--metric", f"'{text}' is not a number", hint="write for example top1@0")
    return value


def user_metric(name: str, function: Callable[..., Any]) -> Metric:
    """`function(outputs, labels)`: one value a sample, shape (batch,), the score being their mean.

    `outputs` is the array if the model has one output, else a mapping of arrays by name. Attributes of the function
    say more: `higher_is_better` (default True), `needs_labels` (True), `per_sample` (True), and `bounds`, the least and
    the largest value that a sample can have (None: not known). With `per_sample = False` it is called once, with the
    outputs and labels of all samples, and gives the score itself; rows then hold those outputs and labels, as a
    structured array. Its key changes with the file it is written in, wherever that lies. Raises DataError for a flag
    that is neither True nor False, and bounds that are none.
    """
    flags = {key: getattr(function, key, True) for key in FLAGS}
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise DataError(name, f"its attribute '{key}' is {value!r}", hint="make it True or False")
    bounds = _bounds(name, function) if flags["per_sample"] else None
    call = partial(_call, name, function)

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        for key, array in outputs.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise TrialError("metric", f"output '{key}' is NaN")
        if labels is None and flags["needs_labels"]:
            raise DataError(f"metric {name}", "needs labels", hint="set its needs_labels = False if it does not")
        return _values(name, call, outputs, labels, bounds) if flags["per_sample"] else _pack(outputs, labels)

    key = f"{name.rpartition(':')[2]} {' '.join(map(str, flags.values()))} {bounds} {source_key(function)}"
    return Metric(
        name, key, measure, mean if flags["per_sample"] else partial(_score, name, call), bounds=bounds, **flags
    )


def _values(name: str, call: Call, outputs: Outputs, labels: Array | None, bounds: tuple[float, float] | None) -> Array:
    """A value for each sample. What is concluded from some of the samples rests on the bounds."""
    values, count = call(outputs, labels), len(next(iter(outputs.values())))
    if values.ndim == 0:
        hint = "return one value a sample, or set its attribute per_sample = False to be called once on all"
        raise DataError(name, f"returned one number for {count} samples", hint=hint)
    if values.shape != (count,):
        raise DataError(name, f"returned shape {values.shape} for {count} samples", hint=f"return ({count},)")
    low, high = bounds or (-np.inf, np.inf)
    outside = values[(values < low) | (values > high)]
    if len(outside):
        what = f"returned {outside[0]:g}, outside its bounds {bounds}"
        raise DataError(name, what, hint="correct its attribute bounds, or remove it")
    return values


def _score(name: str, call: Call, rows: Array) -> float:
    """What the function says of all samples."""
    names = rows.dtype.names or ()
    outputs = {key.removeprefix(OUTPUT): rows[key] for key in names if key.startswith(OUTPUT)}
    score = call(outputs, rows[LABELS] if LABELS in names else None)
    if score.size != 1:
        raise DataError(name, f"returned shape {score.shape}, and per_sample = False", hint="return one number")
    return float(score.reshape(()))


def _call(name: str, function: Callable[..., Any], outputs: Outputs, labels: Array | None) -> Array:
    try:
        given = next(iter(outputs.values())) if len(outputs) == 1 else outputs
        values = np.asarray(function(given, labels), np.float64)
    except Exception as error:
        raise user_error(name, error) from error
    if np.isnan(values).any():
        raise TrialError("metric", f"{name} returned NaN")
    return values


def _bounds(name: str, function: Callable[..., Any]) -> tuple[float, float] | None:
    given = getattr(function, "bounds", None)
    if given is None:
        return None
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not -np.inf < low < high < np.inf:  # NaN fails too
        hint = "make it (least, largest), for example (0, 1)"
        raise DataError(name, f"its attribute 'bounds' is {given!r}", hint=hint)
    return low, high


def _pack(outputs: Outputs, labels: Array | None) -> Array:
    """Outputs and labels of a batch as structured rows, (batch,), so that they concatenate like any other rows."""
    fields = {OUTPUT + key: array for key, array in outputs.items()}
    if labels is not None:
        fields[LABELS] = labels
    kinds = [(key, array.dtype, array.shape[1:]) for key, array in fields.items()]
    rows = np.empty(len(next(iter(fields.values()))), kinds)
    for key, array in fields.items():
        rows[key] = array
    return rows
