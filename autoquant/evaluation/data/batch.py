"""What flows through an evaluation: samples, batches that conform to a model's inputs, and a model's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.messages import reason
from autoquant.model.model import InputSpec

Outputs = Mapping[str, Array]
"""A model's outputs for one batch, by name; the first axis is the batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples side by side: `inputs` by input name, each (batch, ...); `labels` (batch, ...) where there are any."""

    inputs: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def part(self, samples: slice | Array) -> Batch:
        """Some of its samples."""
        labels = None if self.labels is None else self.labels[samples]
        return Batch({name: array[samples] for name, array in self.inputs.items()}, labels)


class Sample(NamedTuple):
    """One sample: `inputs` by input name, without the batch axis; `label` without it, or None."""

    inputs: Mapping[str, Array]
    label: Array | None


class SampleSource(Protocol):
    """Raw samples in a fixed order, numbered from 0, that can be read again and again."""

    @property
    def name(self) -> str:
        """What the user called it; errors start with it."""

    @property
    def has_labels(self) -> bool:
        """Whether samples have labels."""

    @property
    def digest(self) -> str:
        """A sha256, in hex, of the raw content."""

    def hashes(self, indices: Array | None) -> Array:
        """A hash of each chosen sample's inputs (ascending; None: all), without the label; computed once."""

    def column(self, name: str, option: str) -> Array:
        """One value of each sample, (samples,), numbers or text, by a name that `option` was given.

        Raises InputError where there is none of that name, saying what there is.
        """

    def __len__(self) -> int:
        """How many samples there are; a stream is read once to count them."""

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Raw batches of at most `size` of the chosen samples (ascending; None: all), the others not decoded."""


@contextmanager
def reading(path: Path, kind: type[Exception] = OSError) -> Iterator[None]:
    """Turn an error of this kind into a DataError that names the path."""
    try:
        yield
    except kind as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or reason(error)})"
        raise DataError(str(path), what, hint="is it still there, and may you read it?") from error


def stacked(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Put samples into batches of `size`; one ends early where the samples' shapes change."""
    for _, alike in groupby(samples, _shapes):
        while group := list(islice(alike, size)):
            yield _stack(group)
            del group  # its memory may be used for the next one


def blocks(indices: Array | None, total: int, size: int) -> Iterator[slice | Array]:
    """Subscripts that take the chosen samples `size` at a time; a slice, thus no copy, where they lie side by side."""
    count = total if indices is None else len(indices)
    for start in range(0, count, size):
        stop = min(start + size, count)
        if indices is None:
            yield slice(start, stop)
        elif indices[stop - 1] - indices[start] == stop - 1 - start:
            yield slice(int(indices[start]), int(indices[stop - 1]) + 1)
        else:
            yield indices[start:stop]


def _shapes(sample: Sample) -> tuple[tuple[int, ...] | None, ...]:
    label = None if sample.label is None else sample.label.shape
    return (*(array.shape for array in sample.inputs.values()), label)


def _stack(group: list[Sample]) -> Batch:
    inputs = {name: np.stack([sample.inputs[name] for sample in group]) for name in group[0].inputs}
    labels = [sample.label for sample in group if sample.label is not None]
    return Batch(inputs, np.stack(labels) if labels else None)


def with_plain_text(where: str, name: str, array: Array) -> Array:
    """Text in the one form that TensorFlow takes, an array of Python's `bytes` (UTF-8); other arrays as they are.

    Raises DataError where an array holds other Python objects than text or bytes.
    """
    if array.dtype.kind not in "OSU":
        return array
    plain = np.empty(array.size, object)
    for place, value in enumerate(array.reshape(-1).tolist()):
        if not isinstance(value, str | bytes):
            what = f"'{name}' holds {value!r}, of Python's type {type(value).__name__}, at {place}"
            raise DataError(where, what, hint="each must be a number, or each text or bytes")
        plain[place] = value.encode() if isinstance(value, str) else value
    return plain.reshape(array.shape)


def content_of(array: Array) -> bytes | memoryview:
    """The bytes that an array's values are told by; what lies in memory of text are addresses."""
    if array.dtype.hasobject:
        return b"".join(len(value).to_bytes(8, "little") + value for value in array.reshape(-1).tolist())
    return np.ascontiguousarray(array).data


def kind_of(dtype: np.dtype[Any]) -> str:
    """A type as people call it: 'float32', or 'string'."""
    return "string" if dtype.kind in "OSU" else str(dtype)


def conform(where: str, batch: Array, spec: InputSpec) -> Array:
    """The batch in the input's dtype; raises DataError, saying both, where shape or dtype cannot be the model's.

    A last axis of size 1 is added or dropped.
    Floats and integers may become floats of any width. Integers may become other integers that hold their values.
    Floats never become integers: that would round away a forgotten or superfluous preprocessing. Text stays text.
    """
    if batch.dtype.hasobject == spec.dtype.hasobject:  # else the shape is of other data, and says less
        batch = _with_last_axis(batch, spec)
        _check_shape(where, batch, spec)
    if batch.dtype == spec.dtype:
        return batch
    kinds = f"{batch.dtype.kind}>{spec.dtype.kind}"
    if kinds not in {"f>f", "i>f", "u>f", "b>f", "i>i", "i>u", "u>u", "u>i", "b>i", "b>u"}:
        what = f"the model's input '{spec.name}' takes {kind_of(spec.dtype)}, the data is {kind_of(batch.dtype)}"
        hint = "is there a --preprocess too many?" if kinds in {"f>i", "f>u"} else "convert the data"
        if "O" in kinds:
            hint = "is it the data of this model, and of this signature of it?"
        raise DataError(where, what, hint=hint)
    if spec.dtype.kind in "iu" and batch.size:
        limits = np.iinfo(spec.dtype)
        low, high = int(batch.min()), int(batch.max())
        if low < limits.min or high > limits.max:
            what = f"values {low}..{high} do not fit into {spec.dtype}, which the model's input '{spec.name}' takes"
            raise DataError(where, what, hint="shift or scale them with `--preprocess module:function`")
    with np.errstate(over="ignore"):  # becomes infinite, which check_no_nan reports
        return batch.astype(spec.dtype)


def check_no_nan(where: str, batch: Array, numbers: Array | range, *, name: str) -> None:
    """Raise DataError naming the first value that is not finite; `numbers` are the samples', (batch,).

    `name` is what the batch is of, for a person.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(batch.sum()):  # one pass and no temporary; a mere overflow goes on to the exact look
            return
    bad = ~np.isfinite(batch)
    if bad.any():
        place, *index = np.unravel_index(int(bad.argmax()), batch.shape)
        others = int(bad.reshape(len(batch), -1).any(axis=1).sum()) - 1
        near = f", and {others} near it" if others else ""
        what = f"sample {numbers[int(place)]} has NaN or infinite values{near}: "
        what += f"{value_place(name, index)} is {batch[(place, *index)]}"
        raise DataError(where, what, hint="remove such samples")


def value_place(name: str, index: Sequence[np.intp]) -> str:
    """Where in a sample a value stands, for a person to read.

    >>> value_place("input 'image'", (np.intp(3), np.intp(0))), value_place("input 'age'", ())
    ("input 'image' at [3, 0]", "input 'age'")
    """
    return f"{name} at {list(map(int, index))}" if len(index) else name


def _with_last_axis(batch: Array, spec: InputSpec) -> Array:
    """The batch with or without a last axis of size 1, as the input has it: Keras's models take both."""
    wanted = spec.shape
    if wanted is None or batch.ndim == len(wanted):
        return batch
    if batch.ndim == len(wanted) - 1 and wanted[-1] == 1:
        return batch[..., None]
    return batch[..., 0] if batch.ndim == len(wanted) + 1 and batch.shape[-1] == 1 else batch


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
    if len(given) == 3 and (given[1], given[2], given[0]) == wanted:
        return "put the channels last: x.transpose(0, 2, 3, 1)"
    if None not in wanted and int(np.prod(given)) == int(np.prod([n or 0 for n in wanted])):
        return f"reshape it: x.reshape(-1, {', '.join(map(str, wanted))})"
    return "is it the data of this model?"
