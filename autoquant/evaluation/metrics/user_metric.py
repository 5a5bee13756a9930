"""A metric that the user wrote as a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.data.plugins import source_key, user_error

OUTPUT = "output "
LABELS = "labels"


@dataclass(frozen=True, slots=True)
class UserMetric:
    """`function(outputs, labels)`: one value a sample, shape (batch,), the score being their mean.

    `outputs` is the array if the model has one output, else a mapping of arrays by name. Attributes of the function
    say more: `higher_is_better` (default True), `needs_labels` (True), `per_sample` (True), and `bounds`, the least and
    the largest value that a sample can have (None: not known). With `per_sample = False` it is called once, with the
    outputs and labels of all samples, and gives the score itself; rows then hold those outputs and labels, as a
    structured array.
    """

    name: str
    function: Callable[[Any, Any], Any]
    higher_is_better: bool
    needs_labels: bool
    per_sample: bool
    bounds: tuple[float, float] | None = None
    needs_reference: bool = False
    of_classes: bool = False

    @classmethod
    def of(cls, name: str, function: Callable[..., Any]) -> UserMetric:
        """The metric of a function, from its attributes; raises DataError for one that is neither True nor False."""
        flags = {key: getattr(function, key, True) for key in ("higher_is_better", "needs_labels", "per_sample")}
        for key, value in flags.items():
            if not isinstance(value, bool):
                raise DataError(name, f"its attribute '{key}' is {value!r}", hint="make it True or False")
        return cls(name, function, **flags, bounds=_bounds(name, function) if flags["per_sample"] else None)

    @property
    def key(self) -> str:
        """The function's name, its flags, and a digest of its source file, wherever that lies."""
        flags = f"{self.higher_is_better} {self.needs_labels} {self.per_sample} {self.bounds}"
        return f"{self.name.rpartition(':')[2]} {flags} {source_key(self.function)}"

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """The function's values for the batch, or what it needs later; TrialError for NaN in outputs or values."""
        for key, array in outputs.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise TrialError("metric", f"output '{key}' is NaN")
        if labels is None and self.needs_labels:
            raise DataError(f"metric {self.name}", "needs labels", hint="set its needs_labels = False if it does not")
        if not self.per_sample:
            return _pack(outputs, labels)
        values = self._call(outputs, labels)
        count = len(next(iter(outputs.values())))
        if values.ndim == 0:
            what = f"returned one number for {count} samples"
            hint = "return one value a sample, or set its attribute per_sample = False to be called once on all"
            raise DataError(self.name, what, hint=hint)
        if values.shape != (count,):
            raise DataError(self.name, f"returned shape {values.shape} for {count} samples", hint=f"return ({count},)")
        self._check_bounds(values)
        return values

    def combine(self, rows: Array) -> float:
        """The mean, or what the function says of all samples."""
        if self.per_sample:
            return float(np.mean(rows, dtype=np.float64))
        names = rows.dtype.names or ()
        outputs = {key.removeprefix(OUTPUT): rows[key] for key in names if key.startswith(OUTPUT)}
        score = self._call(outputs, rows[LABELS] if LABELS in names else None)
        if score.size != 1:
            raise DataError(
                self.name, f"returned shape {score.shape}, and per_sample = False", hint="return one number"
            )
        return float(score.reshape(()))

    def _check_bounds(self, values: Array) -> None:
        """What is concluded from a part of the samples rests on them."""
        low, high = self.bounds or (-np.inf, np.inf)
        outside = values[(values < low) | (values > high)]
        if len(outside):
            what = f"returned {outside[0]:g}, outside its bounds {self.bounds}"
            raise DataError(self.name, what, hint="correct its attribute bounds, or remove it")

    def _call(self, outputs: Outputs, labels: Array | None) -> Array:
        try:
            given = next(iter(outputs.values())) if len(outputs) == 1 else outputs
            values = np.asarray(self.function(given, labels), np.float64)
        except Exception as error:
            raise user_error(self.name, error) from error
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
        raise DataError(
            name, f"its attribute 'bounds' is {given!r}", hint="make it (least, largest), for example (0, 1)"
        )
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
