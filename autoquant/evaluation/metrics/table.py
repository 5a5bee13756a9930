"""The metrics by name, and how their settings are spelled.

To add one: a function that makes it, and a row here, or an entry point of a package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from types import MappingProxyType
from typing import Any

from autoquant.errors import UsageError
from autoquant.evaluation.data.plugins import check_function, load_function, name_of, nearest
from autoquant.evaluation.metrics.builtin import area_under_curve, mean_squared_error, peak_signal_to_noise, top_k
from autoquant.evaluation.metrics.iou import mean_iou
from autoquant.evaluation.metrics.metric import AT_OUTPUT, Metric
from autoquant.evaluation.metrics.reference import agreement, signal_to_noise
from autoquant.evaluation.metrics.user import user_metric
from autoquant.extensions import Table


def _checked(name: str, distribution: str, found: Any) -> Metric:
    """A metric of another distribution, from a Metric or a function; its version is part of the key."""
    if not callable(found) and not isinstance(found, Metric):
        raise TypeError(f"must be a function of (outputs, labels) or a Metric, got {type(found).__name__}")
    metric = found if isinstance(found, Metric) else user_metric(f"{name} ({distribution})", found)
    return replace(metric, name=name, key=f"{metric.key} of {distribution}")


METRICS: Table[Metric] = Table(
    "autoquant.metrics",
    "metric",
    {
        "top1": top_k("top1"),
        "top5": top_k("top5", k=5),
        "agreement": agreement(),
        "sqnr": signal_to_noise(),
        "miou": mean_iou(),
        "mse": mean_squared_error(),
        "psnr": peak_signal_to_noise(),
        "auc": area_under_curve(),
    },
    _checked,
)
MAKERS: Mapping[str, Callable[..., Metric]] = MappingProxyType(
    {"top1": top_k, "agreement": agreement, "sqnr": signal_to_noise, "miou": mean_iou}
)
"""Those that have settings."""
NUMBERS: Mapping[str, str] = MappingProxyType(
    {"top1": "threshold", "agreement": "threshold", "miou": "threshold", "sqnr": "cap"}
)
"""What a number after the name is: 'top1@0'."""
AXIS = "axis="
WITH_AXIS = ("agreement", "miou")


def open_metric(spec: str | Callable[..., Any]) -> Metric:
    """A metric by name, 'module:function', or function.

    Behind the name come settings: 'top1@0', 'agreement@0' and 'miou@0' move the threshold of a single output column
    from 0.5, which is for probabilities, to 0, which is for logits, or elsewhere; 'sqnr@40' moves the cap;
    'miou@axis=1' says on which axis the classes are; and at the end '@output=NAME' which output is scored. Raises
    UsageError for an unknown name or setting, DataError for a function that is not there.
    """
    if not isinstance(spec, str):
        return user_metric(name_of(spec), spec)
    known, output = _parts(spec)
    metric = user_metric(known, load_function(known)) if ":" in known else _named(known, spec)
    return replace(metric, name=spec, key=f"{metric.key} output={output}", output=output) if output else metric


def check_metric(spec: str | Callable[..., Any]) -> None:
    """Raise as `open_metric`, but do not import a function's module."""
    known = _parts(spec)[0] if isinstance(spec, str) else ""
    if ":" in known:
        check_function(known)
    elif known and not METRICS.origin(known):
        _named(known, known)


def _parts(spec: str) -> tuple[str, str]:
    """The metric itself, and the output that it is to score, or ''."""
    known, at_output, output = spec.partition(AT_OUTPUT)
    if at_output and not output:
        raise UsageError("--metric", f"'{spec}' names no output", hint=f"write for example top1{AT_OUTPUT}scores")
    return known, output


def _named(text: str, spec: str) -> Metric:
    """A metric by its name and settings, called as the whole of `spec`."""
    name, *given = text.split("@")
    if name not in METRICS:
        raise UsageError("--metric", f"unknown '{name}'", hint=nearest(name, [*METRICS, "module:function"]))
    settings: dict[str, float | int] = {}
    for one in given:
        key, value = _setting(name, one)
        if key in settings:
            raise UsageError("--metric", f"'{spec}' says {key} twice", hint="say it once")
        settings[key] = value
    plain = METRICS[name]
    made = MAKERS[name](spec, **settings) if name in MAKERS else replace(plain, name=spec)
    return plain if made.key == plain.key and spec == text else made


def _setting(name: str, text: str) -> tuple[str, float | int]:
    """What a text behind '@' sets, and to what. Raises UsageError."""
    if text.startswith(AXIS):
        if name not in WITH_AXIS:
            raise UsageError("--metric", f"'{name}' has no axis", hint=f"leave out '@{text}'; it is for segmentation")
        return "axis", _axis(text.removeprefix(AXIS))
    if name not in NUMBERS:
        hint = f"leave out '@{text}'; {', '.join(NUMBERS)} have one"
        raise UsageError("--metric", f"'{name}' has no threshold", hint=hint)
    return NUMBERS[name], _number(text, least=0.0 if NUMBERS[name] == "cap" else None)


def _axis(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value == 0:
        what = f"'{text}' is not the axis of the classes"
        raise UsageError("--metric", what, hint="write axis=1 where they are before height and width; 0 is the batch")
    return value


def _number(text: str, *, least: float | None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or (least is not None and value <= least):
        above = "" if least is None else f" above {least:g}"
        raise UsageError("--metric", f"'{text}' is not a number{above}", hint="write for example top1@0, or sqnr@40")
    return value
