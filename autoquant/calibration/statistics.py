"""Statistics of one FP32 pass over calibration data: distributions of tensors after each number of batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.cache import CacheEntry, read_cache, write_cache
from autoquant.calibration.channels import ChannelCollector, Channels
from autoquant.calibration.distribution import Collector, Distribution, ExactCollector
from autoquant.calibration.near_zero import NearZero
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.sketcher import Sketcher
from autoquant.errors import PlanError

VERSION = 7
"""Version of the cache; part of the key, so that a file of another version is never used."""
FACTS = ("low", "high", "width", "first", "nonfinite")
COUNTS = (np.int8, np.int16, np.int32, np.int64)
"""What counts of a sketch are."""
PARTS = (
    "facts",
    "bins",
    "sizes",
    "near",
    "keys",
    "near_counts",
    *(f"counts{np.dtype(one).itemsize}" for one in COUNTS),
)

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
    entries = [(where, _as_sketches(each)) for where, each in _entries(statistics)]
    index = [{**where, "sketches": len(each)} for where, each in entries]
    sketches = [sketch for _, each in entries for sketch in each]
    arrays = {  # a few large ones: an .npz takes as long for each as for 100 KB
        "facts": np.array([[getattr(one, name) for name in FACTS] for one in sketches], np.float64),
        "bins": np.array([len(one.counts) for one in sketches], np.int64),
        "sizes": np.array([one.counts.itemsize for one in sketches], np.int64),
        "near": np.array([len(one.near.keys) for one in sketches], np.int64),
        "keys": np.concatenate([np.zeros(0, np.int64), *(one.near.keys for one in sketches)]),
        "near_counts": np.concatenate([np.zeros(0, np.int64), *(one.near.counts for one in sketches)]),
    }
    for dtype in map(np.dtype, COUNTS):
        held = (one.counts for one in sketches if one.counts.dtype == dtype)
        arrays[f"counts{dtype.itemsize}"] = np.concatenate([np.zeros(0, dtype), *held])
    write_cache(path, CacheEntry({"sketches": index}, arrays), key=statistics.key, version=VERSION)


def load_statistics(path: Path, *, key: str) -> Statistics | None:
    """What `save_statistics` wrote, or None when that is not there, damaged, or of another key or version."""
    entry = read_cache(path, key=key, version=VERSION)
    if entry is None or set(entry.arrays) != set(PARTS):  # a name in the archive is damaged
        return None
    tensors: dict[int, dict[str, Distribution]] = {}
    slices: dict[int, dict[tuple[str, int], Channels]] = {}
    sketches = _sketches(entry.arrays)
    for where in entry.header["sketches"]:
        name, each = where["tensor"], tuple(islice(sketches, where["sketches"]))
        if where["axis"] is None:
            tensors.setdefault(where["batch_num"], {})[name] = each[0]
        else:
            slices.setdefault(where["batch_num"], {})[name, where["axis"]] = Channels(name, each)
    return Statistics(key, tensors, slices)


def _entries(statistics: Statistics) -> Iterator[tuple[Mapping[str, Any], Sequence[Distribution]]]:
    """What is written, with the sketches of a tensor (one) or of its channels (all)."""
    for batch_num, tensors in sorted(statistics.tensors.items()):
        for name, seen in sorted(tensors.items()):
            yield {"batch_num": batch_num, "tensor": name, "axis": None}, [seen]
    for batch_num, slices in sorted(statistics.slices.items()):
        for (name, axis), channels in sorted(slices.items()):
            yield {"batch_num": batch_num, "tensor": name, "axis": axis}, channels.each


def _as_sketches(each: Sequence[Distribution]) -> list[Sketch]:
    sketches = [one for one in each if isinstance(one, Sketch)]
    if len(sketches) < len(each):
        raise ValueError("values that were kept exactly are too large for a file")
    return sketches


def _sketches(arrays: Mapping[str, Array]) -> Iterator[Sketch]:
    """Sketches from their facts, (sketches, FACTS), their counts, by type one behind the other, and those near zero."""
    bins, sizes = arrays["bins"], arrays["sizes"]
    counts = {size: iter(_cut(arrays[f"counts{size}"], bins[sizes == size])) for size in np.unique(sizes).tolist()}
    near = [_cut(arrays[part], arrays["near"]) for part in ("keys", "near_counts")]
    for (low, high, width, first, nonfinite), size, *held in zip(
        arrays["facts"].tolist(), sizes.tolist(), *near, strict=True
    ):
        yield Sketch(low, high, width, int(first), next(counts[size]), int(nonfinite), NearZero(*held))


def _cut(array: Array, lengths: Array) -> list[Array]:
    return np.split(array, np.cumsum(lengths)[:-1])
