"""Check data against a model's input, and cast it to the input's type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Array

if TYPE_CHECKING:
    from autoquant.model.model import InputSpec


def conform(where: str, batch: Array, spec: InputSpec) -> Array:
    """The batch in the input's dtype; raises DataError, saying both, where shape or dtype cannot be the model's.

    Floats and integers may become floats of any width. Integers may become other integers that hold their values.
    Floats never become integers: that would round away a forgotten or superfluous preprocessing.
    """
    _check_shape(where, batch, spec)
    if batch.dtype == spec.dtype:
        return batch
    kinds = f"{batch.dtype.kind}>{spec.dtype.kind}"
    if kinds not in {"f>f", "i>f", "u>f", "b>f", "i>i", "i>u", "u>u", "u>i", "b>i", "b>u"}:
        what = f"the model's input '{spec.name}' takes {spec.dtype}, the data is {batch.dtype}"
        hint = "is there a --preprocess too many?" if kinds in {"f>i", "f>u"} else "convert the data"
        raise DataError(where, what, hint=hint)
    if spec.dtype.kind in "iu" and batch.size:
        limits = np.iinfo(spec.dtype)
        low, high = int(batch.min()), int(batch.max())
        if low < limits.min or high > limits.max:
            what = f"values {low}..{high} do not fit into {spec.dtype}, which the model's input '{spec.name}' takes"
            raise DataError(where, what, hint="shift or scale them with `--preprocess module:function`")
    with np.errstate(over="ignore"):  # becomes infinite, which check_no_nan reports
        return batch.astype(spec.dtype)


def check_no_nan(where: str, batch: Array, numbers: Array | range) -> None:
    """Raise DataError naming the first sample that is not finite; `numbers` are the samples', (batch,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(batch.sum()):  # one pass and no temporary; a mere overflow goes on to the exact look
            return
    bad = ~np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
    if bad.any():
        first = numbers[int(np.argmax(bad))]
        what = f"sample {first} has NaN or infinite values" + (
            f", and {bad.sum() - 1} near it" if bad.sum() > 1 else ""
        )
        raise DataError(where, what, hint="remove such samples")


def _check_shape(where: str, batch: Array, spec: InputSpec) -> None:
    if spec.shape is None:
        return
    given, wanted = batch.shape[1:], spec.shape[1:]
    if len(given) == len(wanted) and all(w is None or g == w for g, w in zip(given, wanted, strict=True)):
        return
    what = f"the model's input '{spec.name}' takes {shape_text(wanted)}, the data has {shape_text(given)}"
    raise DataError(where, what, hint=_shape_hint(given, wanted))


def shape_text(shape: tuple[int | None, ...]) -> str:
    """(28, None, 1) as '(batch, 28, ?, 1)'."""
    return f"({', '.join(['batch', *('?' if n is None else str(n) for n in shape)])})"


def _shape_hint(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    if (*given, 1) == wanted:
        return "add an axis for the channel: x[..., None]"
    if given == (*wanted, 1):
        return "drop the last axis: x[..., 0]"
    if len(given) == 3 and (given[1], given[2], given[0]) == wanted:
        return "put the channels last: x.transpose(0, 2, 3, 1)"
    if None not in wanted and int(np.prod(given)) == int(np.prod([n or 0 for n in wanted])):
        return f"reshape it: x.reshape(-1, {', '.join(map(str, wanted))})"
    return "is it the data of this model?"
