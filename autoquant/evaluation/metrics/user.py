"""Metrics that a user wrote as functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError, UserFunctionError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.plugins import retried, source_key
from autoquant.evaluation.metrics.metric import Metric, mean, require_numbers

OUTPUT, REFERENCE = "output ", "reference "
LABELS = "labels"
FLAGS = {"higher_is_better": True, "needs_labels": True, "per_sample": True, "needs_reference": False}
"""Attributes of the function, and what they are where it has none."""


def user_metric(name: str, function: Callable[..., Any]) -> Metric:
    """`function(outputs, labels)`: one value a sample, shape (batch,), the score being their mean.

    `outputs` is the array if the model has one output, or one was chosen, else a mapping of arrays by name. Attributes
    of the function say more: `higher_is_better` (default True), `needs_labels` (True), `per_sample` (True), and
    `bounds`, the least and the largest value that a sample can have (None: not known). With `needs_reference = True` it
    is called as `function(outputs, labels, reference)` with the FP32 model's outputs. With `per_sample = False` it is
    called once, with the outputs and labels of all samples, and gives the score itself; rows then hold those, as a
    structured array. Its key changes with the file it is written in, wherever that lies. Raises DataError for a flag
    that is neither True nor False, and bounds that are none.
    """
    flags: dict[str, Any] = {key: getattr(function, key, default) for key, default in FLAGS.items()}
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise DataError(name, f"its attribute '{key}' is {value!r}", hint="make it True or False")
    bounds = _bounds(name, function) if flags["per_sample"] else None
    called = _UserFunction(name, function, flags["needs_reference"])

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        for key, array in outputs.items():
            require_numbers(key, array)
        if labels is None and flags["needs_labels"]:
            raise DataError(f"metric {name}", "needs labels", hint="set its needs_labels = False if it does not")
        wanted = reference if flags["needs_reference"] else None
        if flags["per_sample"]:
            return called.values(outputs, labels, wanted, bounds)
        return _pack(outputs, labels, wanted)

    told = [flags["higher_is_better"], flags["needs_labels"], flags["per_sample"], bounds]
    told += ["reference"] if flags["needs_reference"] else []
    key = f"{name.rpartition(':')[2]} {' '.join(map(str, told))} {source_key(function)}"
    combine = mean if flags["per_sample"] else called.score
    return Metric(name, key, measure, combine, bounds=bounds, all_outputs=True, **flags)


@dataclass(frozen=True, slots=True)
class _UserFunction:
    """A function of the user's; with `reference` it takes the FP32 outputs as well."""

    name: str
    function: Callable[..., Any]
    reference: bool

    def values(
        self, outputs: Outputs, labels: Array | None, reference: Outputs | None, bounds: tuple[float, float] | None
    ) -> Array:
        """A value for each sample. What is concluded from some of the samples rests on the bounds."""
        values, count = self._call(outputs, labels, reference), len(next(iter(outputs.values())))
        if values.ndim == 0:
            hint = "return one value a sample, or set its attribute per_sample = False to be called once on all"
            raise UserFunctionError(self.name, f"returned one number for {count} samples", hint=hint)
        if values.shape != (count,):
            what = f"returned shape {values.shape} for {count} samples"
            raise UserFunctionError(self.name, what, hint=f"return ({count},)")
        low, high = bounds or (-np.inf, np.inf)
        outside = values[(values < low) | (values > high)]
        if len(outside):
            what = f"returned {outside[0]:g}, outside its bounds {bounds}"
            raise UserFunctionError(self.name, what, hint="correct its attribute bounds, or remove it")
        return values

    def score(self, rows: Array) -> float:
        """What the function says of all samples, from `_pack`ed rows."""
        outputs, reference = _unpack(rows, OUTPUT), _unpack(rows, REFERENCE)
        score = self._call(outputs, rows[LABELS] if LABELS in (rows.dtype.names or ()) else None, reference)
        if score.size != 1:
            what = f"returned shape {score.shape}, and per_sample = False"
            raise UserFunctionError(self.name, what, hint="return one number")
        return float(score.reshape(()))

    def _call(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        given = [_one(outputs), labels]
        if self.reference:
            given.append(_one(reference or {}))
        values = retried(self.name, lambda: np.asarray(self.function(*given), np.float64))
        if np.isnan(values).any():
            raise TrialError("metric", f"{self.name} returned NaN")
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


def _one(outputs: Outputs) -> Outputs | Array:
    """The array, if there is one output."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _pack(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
    """Outputs and labels of a batch as structured rows, (batch,), so that they concatenate like any other rows."""
    fields = {OUTPUT + key: array for key, array in outputs.items()}
    fields |= {REFERENCE + key: array for key, array in (reference or {}).items()}
    if labels is not None:
        fields[LABELS] = labels
    kinds = [(key, array.dtype, array.shape[1:]) for key, array in fields.items()]
    rows = np.empty(len(next(iter(fields.values()))), kinds)
    for key, array in fields.items():
        rows[key] = array
    return rows


def _unpack(rows: Array, kind: str) -> Outputs:
    """The outputs of this kind in such rows, by name."""
    return {key.removeprefix(kind): rows[key] for key in rows.dtype.names or () if key.startswith(kind)}
