"""Statistics of one FP32 pass over calibration data: distributions of tensors after each number of batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.cache import CacheEntry, read_cache, write_cache
from autoquant.calibration.channels import ChannelCollector, Channels
from autoquant.calibration.distribution import Collector, Distribution, ExactCollector
from autoquant.calibration.near_zero import NearZero
from autoquant.calibration.sketch import Sketch, Sketcher
from autoquant.errors import PlanError

VERSION = 5
"""Version of the cache; part of the key, so that a file of another version is never used."""
FACTS = ("low", "high", "width", "first", "nonfinite")
PARTS = ("facts", "bins", "counts", "near", "keys", "near_counts")

Slices = Mapping[tuple[str, int], Channels]
"""Channels by tensor and by the axis, as its reader gives it, that numbers them."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Distributions by number of batches and tensor, and of some tensors by channel.

    `key` says of which model, data and preprocessing.
    """

    key: str
    tensors: Mapping[int, Mapping[str, Distribution]]
    slices: Mapping[int, Slices] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def batch_nums(self) -> tuple[int, ...]:
        """The numbers of batches after which there are distributions."""
        return tuple(sorted(self.tensors))

    def distribution(self, tensor: str, batch_num: int) -> Distribution:
        """The distribution of a tensor in the first `batch_num` batches. Raises PlanError where there is none."""
        self._check(batch_num)
        if tensor not in self.tensors[batch_num]:
            raise PlanError(tensor, "was not calibrated", hint="calibrate the layer that reads it")
        return self.tensors[batch_num][tensor]

    def channels(self, tensor: str, axis: int, batch_num: int) -> Channels:
        """The same by channel. Raises PlanError where there is none."""
        self._check(batch_num)
        channels = self.slices.get(batch_num, {}).get((tensor, axis))
        if channels is None or not channels.each:
            hint = "calibrate its channels, or remove dmq_balancer_param"
            raise PlanError(tensor, "was not calibrated channel by channel", hint=hint)
        return channels

    def _check(self, batch_num: int) -> None:
        if batch_num not in self.tensors:
            kept = ", ".join(map(str, self.batch_nums))
            raise PlanError("batch_num", f"{batch_num} batches were not calibrated", hint=f"there are {kept}")


def collector(name: str, *, exact: bool) -> Collector:
    """The collector of a tensor: of every value, or of a sketch. `name` is what errors call it."""
    return ExactCollector(name) if exact else Sketcher()


def collect(
    stages: Iterable[tuple[int, Iterable[Mapping[str, Array]]]],
    *,
    key: str,
    exact: Collection[str] = (),
    channels: Collection[tuple[str, int]] = (),
    threads: int = 1,
) -> Statistics:
    """See the tensors to watch.

    `stages` gives, in ascending order, a number of batches and what is new until then, in parts of any size. Arrays may
    be views of memory that is used again: when the next part is asked for, nothing of the last one is held. Of the
    tensors in `exact` every value is kept, of others a sketch, in which every value is counted; those in `channels`,
    with the axis that numbers them, are seen channel by channel as well. `threads` share the arrays of a part, which
    changes nothing of what is seen. Raises TrialError where what is kept is too large.
    """
    whole: dict[str, Collector] = {}
    sliced = {(name, axis): ChannelCollector(name, axis, exact=name in exact) for name, axis in channels}
    tensors: dict[int, Mapping[str, Distribution]] = {}
    slices: dict[int, Slices] = {}
    with ThreadPoolExecutor(threads) as pool:
        for batch_num, parts in stages:
            for part in parts:
                whole |= {name: collector(name, exact=name in exact) for name in part if name not in whole}
                shared = _shared(part, whole, sliced)
                del part  # its memory may be used for the next one
                for thread in [pool.submit(_take_in, shared) for _ in range(threads)]:
                    thread.result()
            tensors[batch_num] = {name: one.distribution() for name, one in whole.items()}
            slices[batch_num] = {place: one.channels() for place, one in sliced.items()}
    return Statistics(key, tensors, slices)


def _shared(
    part: Mapping[str, Array], whole: Mapping[str, Collector], sliced: Mapping[tuple[str, int], ChannelCollector]
) -> deque[tuple[Collector | ChannelCollector, Array]]:
    """What takes in each array of a part, the largest first, so that all threads end at about the same time."""
    both: list[tuple[Collector | ChannelCollector, Array]] = [(whole[name], values) for name, values in part.items()]
    both += [(one, part[name]) for (name, _), one in sliced.items() if name in part]
    return deque(sorted(both, key=lambda one: one[1].size, reverse=True))


def _take_in(shared: deque[tuple[Collector | ChannelCollector, Array]]) -> None:
    """Take in arrays until none is left. Only its own variables hold one: none is held when it has returned."""
    while True:
        try:
            one, values = shared.popleft()
        except IndexError:
            return
        one.add(values)


def save_statistics(statistics: Statistics, path: Path) -> None:
    """Write sketches as an .npz, whole or not at all; raises ValueError for exact statistics, which are too large."""
    arrays: dict[str, Array] = {}
    index: list[Mapping[str, Any]] = []
    for where, sketches in _entries(statistics):
        arrays[f"facts{len(index)}"] = np.array([[getattr(s, name) for name in FACTS] for s in sketches], np.float64)
        arrays[f"bins{len(index)}"] = np.array([len(s.counts) for s in sketches], np.int64)
        arrays[f"counts{len(index)}"] = np.concatenate([np.zeros(0, np.int8), *(s.counts for s in sketches)])
        arrays[f"near{len(index)}"] = np.array([len(s.near.keys) for s in sketches], np.int64)
        arrays[f"keys{len(index)}"] = np.concatenate([np.zeros(0, np.int64), *(s.near.keys for s in sketches)])
        arrays[f"near_counts{len(index)}"] = np.concatenate([np.zeros(0, np.int64), *(s.near.counts for s in sketches)])
        index.append(where)
    write_cache(path, CacheEntry({"sketches": index}, arrays), key=statistics.key, version=VERSION)


def load_statistics(path: Path, *, key: str) -> Statistics | None:
    """What `save_statistics` wrote, or None when that is not there, damaged, or of another key or version."""
    entry = read_cache(path, key=key, version=VERSION)
    if entry is None:
        return None
    tensors: dict[int, dict[str, Distribution]] = {}
    slices: dict[int, dict[tuple[str, int], Channels]] = {}
    index = entry.header["sketches"]
    if set(entry.arrays) != {f"{part}{number}" for part in PARTS for number in range(len(index))}:
        return None  # a name in the archive is damaged
    for number, where in enumerate(index):
        name, each = where["tensor"], tuple(_sketches(*(entry.arrays[f"{part}{number}"] for part in PARTS)))
        if where["axis"] is None:
            tensors.setdefault(where["batch_num"], {})[name] = each[0]
        else:
            slices.setdefault(where["batch_num"], {})[name, where["axis"]] = Channels(name, each)
    return Statistics(key, tensors, slices)


def _entries(statistics: Statistics) -> Iterator[tuple[Mapping[str, Any], list[Sketch]]]:
    """What is written, with the sketches of a tensor (one) or of its channels (all)."""
    for batch_num, tensors in sorted(statistics.tensors.items()):
        for name, seen in sorted(tensors.items()):
            yield {"batch_num": batch_num, "tensor": name, "axis": None}, _as_sketches([seen])
    for batch_num, slices in sorted(statistics.slices.items()):
        for (name, axis), channels in sorted(slices.items()):
            yield {"batch_num": batch_num, "tensor": name, "axis": axis}, _as_sketches(channels.each)


def _as_sketches(each: Sequence[Distribution]) -> list[Sketch]:
    sketches = [one for one in each if isinstance(one, Sketch)]
    if len(sketches) < len(each):
        raise ValueError("values that were kept exactly are too large for a file")
    return sketches


def _sketches(
    facts: Array, bins: Array, counts: Array, near: Array, keys: Array, near_counts: Array
) -> Iterator[Sketch]:
    """Sketches from their facts, (sketches, FACTS), and their counts, one behind the other, each with so many bins.

    Their values near zero lie one behind the other as well, each with so many keys.
    """
    own, (own_keys, own_near) = _cut(counts, bins), (_cut(each, near) for each in (keys, near_counts))
    for (low, high, width, first, nonfinite), *held in zip(facts.tolist(), own, own_keys, own_near, strict=True):
        yield Sketch(low, high, width, int(first), held[0], int(nonfinite), NearZero(held[1], held[2]))


def _cut(array: Array, lengths: Array) -> list[Array]:
    return np.split(array, np.cumsum(lengths)[:-1])
