"""The metrics by name. To add one: a function that makes it, a row here. A user's own: see user_metric.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any

from autoquant.errors import UsageError
from autoquant.evaluation.data.plugins import load_function, name_of, nearest
from autoquant.evaluation.metrics.builtin import (
    agreement,
    area_under_curve,
    mean_squared_error,
    peak_signal_to_noise,
    top_k,
)
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.metrics.user_metric import user_metric

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
