"""Samples that a function of the user's gives, batch by batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, UserFunctionError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.batch import Batch, Sample, content_of, stacked, with_plain_text
from autoquant.evaluation.data.batches import WEIGHTS, by_name, unpacked
from autoquant.evaluation.data.endless import EndlessGuard, length_of
from autoquant.evaluation.data.hashes import HASH, ContentDigest, hashes_of, with_columns
from autoquant.evaluation.data.plugins import nearest_or, user_error
from autoquant.evaluation.data.sample_cache import SampleCache
from autoquant.quiet import no_progress

FORMS = "yield x, (x, y) or ({'input': x}, y)"
NAMED = "name inputs as the model does; what else is named must have one value for each sample"
Columns = Mapping[str, Array]
"""What else is said of each sample, by name, each (samples,): the unit or the group that it belongs to."""


@dataclass(frozen=True, slots=True)
class FirstPass:
    """The counting pass: the hash of each sample, a digest of all, the form and the checksum (CRC-32) of each batch.

    `cache` has all samples, or is None. `columns` are what else the batches hold.
    """

    hashes: Array
    labelled: bool
    digest: str
    forms: tuple[str, ...]
    checksums: tuple[int, ...]
    cache: SampleCache | None
    columns: Columns


class FunctionSource:
    """A function called without arguments that gives batches, in each call the same ones.

    The first call counts them, and caches all where there is room: then there is no other. Else every pass is a call,
    up to the last sample that is wanted. Only the thread that reads calls it, and iterates over what it returns, so
    that it need not be safe for threads. The batches are cut and joined as needed. A later pass that gives another
    number of batches, or a batch of another shape or content, raises DataError: scores of such passes could not be
    compared. So does one that does not end.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[], Any],
        inputs: Sequence[str],
        *,
        warn: Callable[[str], None] = no_progress,
        room: CacheRoom | None = None,
        most: int | None = None,
        ordered: bool = False,
    ):
        """`warn` is told where counting takes long. Of more samples than `most` the first ones are its own.

        `ordered` is as of `by_name`.
        """
        self.name = name
        self._room = room
        self._most = most
        self._warn = warn
        self._function = function
        self._inputs = tuple(inputs)
        self._ordered = ordered
        self._weighted = False  # once that was said

    @property
    def has_labels(self) -> bool:
        """Whether batches have labels."""
        return self._first_pass.labelled

    @property
    def cached(self) -> int | None:
        """Bytes of the cached samples; None where each pass is a call of the function."""
        cache = self._first_pass.cache
        return None if cache is None else cache.size

    @property
    def digest(self) -> str:
        """Of all samples and labels."""
        return self._first_pass.digest

    def __len__(self) -> int:
        return len(self._first_pass.hashes)

    def hashes(self, indices: Array | None) -> Array:
        """Of the chosen samples' content."""
        return self._first_pass.hashes if indices is None else self._first_pass.hashes[indices]

    def columns(self) -> Columns:
        """The arrays, by name, that batches hold beside inputs and labels: one value for each sample."""
        return self._first_pass.columns

    def column(self, name: str, option: str) -> Array:
        """What batches hold under this name, see SampleSource."""
        columns = self.columns()
        if name not in columns:
            hint = (
                f"yield it beside the inputs, ({{'{self._inputs[0]}': x, '{name}': values}}, y), or leave out {option}"
            )
            what = f"yields no array '{name}' with one value for each sample"
            raise DataError(self.name, what, hint=nearest_or(name, list(columns), hint))
        return columns[name]

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """From the cache, or in one pass over the function, without keeping what is not chosen."""
        cache = self._first_pass.cache
        return stacked(self._samples(indices), size) if cache is None else cache.read(indices, size)

    def _samples(self, wanted: Array | None) -> Iterator[Sample]:
        start, end = 0, len(self) if wanted is None else int(wanted[-1]) + 1 if len(wanted) else 0
        wanted = np.arange(len(self)) if wanted is None and self._most else wanted
        for batch in self._checked():
            stop = start + len(batch)
            chosen = np.arange(len(batch))
            if wanted is not None:
                chosen = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)] - start
            part = batch.part(chosen)  # a copy: the function may use its memory again for the next batch
            for i in range(len(part)):
                label = None if part.labels is None else part.labels[i]
                yield Sample({key: array[i, ...] for key, array in part.inputs.items()}, label)
            start = stop
            if start >= end and (self._most or end < len(self)):  # a whole pass goes on: there must be nothing more
                return

    @cached_property
    def _first_pass(self) -> FirstPass:
        digest, count, labelled = ContentDigest(), 0, False
        forms: list[str] = []
        checksums: list[int] = []
        found: list[Array] = [np.zeros(0, HASH)]
        beside: list[Columns] = []
        guard = EndlessGuard(self.name, self._warn)
        cache = None if self._room is None else SampleCache(self._room)
        for whole, columns in self._batches():
            forms.append(_form(whole))
            checksums.append(_checksum(whole))
            batch = whole if self._most is None else whole.part(slice(self._most - count))
            hashes = hashes_of(whole)
            guard.see(whole, hashes)
            hashes = hashes[: len(batch)]
            digest.add(hashes, batch.labels)
            found.append(hashes)
            labelled = batch.labels is not None
            beside.append({name: column[: len(batch)].copy() for name, column in columns.items()})
            count += len(batch)
            if cache is not None:
                cache.add(batch)
            if count == self._most and not guard.suspects:  # else it is read on, until that is certain
                break
        joined = {name: np.concatenate([one[name] for one in beside]) for name in (beside[0] if beside else ())}
        digests = with_columns(digest.hex, joined)
        return FirstPass(
            np.concatenate(found), labelled, digests, tuple(forms), tuple(checksums), _whole(cache), joined
        )

    def _checked(self) -> Iterator[Batch]:
        """Batches of a pass that must equal the counting pass, as far as it is read."""
        hint = "it must yield the same batches in the same order each time: no shuffling, no shared iterator"
        first, number = self._first_pass, -1
        for number, (batch, _) in enumerate(self._batches()):
            if number == len(first.forms):
                raise DataError(self.name, f"yielded more than the {number} batches of its first pass", hint=hint)
            if (form := _form(batch)) != first.forms[number]:
                what = f"batch {number} is {form}, in the first pass it was {first.forms[number]}"
                raise DataError(self.name, what, hint=hint)
            if _checksum(batch) != first.checksums[number]:
                raise DataError(self.name, f"batch {number} differs from that of its first pass", hint=hint)
            yield batch
        if number + 1 < len(first.forms):
            what = f"yielded {number + 1} batches in a later pass, {len(first.forms)} in the first"
            raise DataError(self.name, what, hint=hint)

    def _batches(self) -> Iterator[tuple[Batch, Columns]]:
        first: tuple[Batch, Columns] | None = None
        for number, item in enumerate(self._items()):
            batch, columns = self._as_batch(f"{self.name}, batch {number}", item)
            if first and (first[0].labels is None) != (batch.labels is None):
                raise DataError(self.name, "yields labels with some batches only", hint="yield them with all or none")
            if first and set(first[1]) ^ set(columns):
                names = ", ".join(map(repr, sorted(set(first[1]) ^ set(columns))))
                raise DataError(self.name, f"yields {names} with some batches only", hint="yield it with all or none")
            first = first or (batch, columns)
            yield batch, columns

    def _items(self) -> Iterator[Any]:
        """The items of one call; where that raises, those that are missing are of a second one."""
        given = 0
        try:
            for item in self._called():
                given += 1
                yield item
        except UserFunctionError:
            yield from islice(self._called(), given, None)

    def _called(self) -> Iterator[Any]:
        try:
            result = self._function()
        except Exception as error:
            raise user_error(self.name, error) from error
        if not isinstance(result, Iterable) or isinstance(result, (np.ndarray, tuple, Mapping, str)):
            what = f"returned a single {type(result).__name__}, not batches one after the other"
            raise DataError(self.name, what, hint=FORMS)
        length = length_of(self.name, result)
        try:
            yield from islice(result, length)
        except Exception as error:
            raise user_error(self.name, error) from error

    def _as_batch(self, where: str, item: Any) -> tuple[Batch, Columns]:
        x, labels, weighted = unpacked(where, item)
        if weighted and not self._weighted:
            self._weighted = True
            self._warn(f"{self.name}: {WEIGHTS}")
        values = by_name(where, x, self._inputs, ordered=self._ordered, more=True)
        try:
            inputs = {key: with_plain_text(where, key, np.asarray(values[key])) for key in self._inputs}
            batch = Batch(inputs, None if labels is None else np.asarray(labels))
            columns = {str(key): np.asarray(values[key]) for key in values if key not in self._inputs}
        except ValueError as error:  # ragged lists
            raise DataError(where, f"is not an array: {error}", hint=FORMS) from error
        lengths = {len(array) if array.ndim else -1 for array in _arrays(batch)}
        if len(lengths) > 1 or -1 in lengths or (batch.labels is not None and batch.labels.dtype.hasobject):
            what = f"is not a batch: {_form(batch)}"
            raise DataError(where, what, hint="each must be an array whose first axis is the batch, labels numbers")
        if any(column.shape != (len(batch),) for column in columns.values()):
            what = f"yields {', '.join(map(str, values))}, the model takes {', '.join(self._inputs)}"
            raise DataError(where, what, hint=NAMED)
        return batch, columns


def _whole(cache: SampleCache | None) -> SampleCache | None:
    """The cache, if it has everything: the first samples alone would save no call."""
    if cache is None:
        return None
    cache.flush()
    if cache.full:
        cache.clear()
    return None if cache.full else cache


def _arrays(batch: Batch) -> Iterator[Array]:
    yield from batch.inputs.values()
    if batch.labels is not None:
        yield batch.labels


def _form(batch: Batch) -> str:
    inputs = ", ".join(_form_of(array.dtype, array.shape) for array in batch.inputs.values())
    labels = batch.labels
    return inputs if labels is None else f"{inputs} with labels {_form_of(labels.dtype, labels.shape)}"


@lru_cache(maxsize=1024)
def _form_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{dtype}{list(shape)}"


def _checksum(batch: Batch) -> int:
    value = 0
    for array in _arrays(batch):
        value = zlib.crc32(content_of(array), value)
    return value
