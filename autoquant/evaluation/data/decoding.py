"""Decode samples on all cores, in order, and cache as many as memory has room for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from autoquant.evaluation.data.batch import Sample
from autoquant.evaluation.data.prefetch import in_order

MAX_ROOM = 2**30
"""Bytes of decoded samples that a source caches at most."""
OVERHEAD = 512
"""Bytes that the objects around a sample's values take, about."""


class Decoder:
    """Samples by number, from a function that decodes one; those decoded first are cached for later passes.

    At most `room` bytes are cached; by default those of `room_for_samples`. Cached samples must not be written to.
    """

    def __init__(self, room: int | None = None) -> None:
        self._room = room_for_samples() if room is None else room
        self._cached: dict[int, Sample] = {}

    def samples(self, decode: Callable[[int], Sample], numbers: Iterable[int], ahead: int) -> Iterator[Sample]:
        """The samples of these numbers in this order; up to `ahead` of them are decoded before they are asked for.

        `decode` is called from several threads at once. What it raises arrives in place of its sample. The threads end
        with the iterator: at its end, when it is closed, and when it is given up.
        """
        threads = cores()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="autoquant-decode")

        def start(number: int) -> Future[Sample]:
            if number not in self._cached:
                return pool.submit(decode, number)
            done = Future[Sample]()
            done.set_result(self._cached[number])
            return done

        try:
            for number, sample in in_order(start, map(int, numbers), max(ahead, threads)):
                self._cache(number, sample)
                yield sample
        finally:
            pool.shutdown(cancel_futures=True)

    def _cache(self, number: int, sample: Sample) -> None:
        size = OVERHEAD + sum(array.nbytes for array in sample.inputs.values())
        if number not in self._cached and size <= self._room:
            self._room -= size
            self._cached[number] = sample


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for_samples(root: Path = Path("/")) -> int:
    """A quarter of the memory that is free, in bytes, at most MAX_ROOM; the limit of a container (cgroup 2) counts.

    Where a system does not say how much is free, a quarter of MAX_ROOM.
    """
    group = root / "sys" / "fs" / "cgroup"
    free = [1024 * kib for kib in _numbers(root / "proc" / "meminfo", r"MemAvailable:\s*(\d+) kB")]
    limit, used = _numbers(group / "memory.max", r"^\d+"), _numbers(group / "memory.current", r"^\d+")
    free += [most - now for most, now in zip(limit, used, strict=False)]  # no limit is the word "max"
    return max(0, min(MAX_ROOM, min(free) // 4)) if free else MAX_ROOM // 4


def _numbers(path: Path, pattern: str) -> list[int]:
    try:
        return [int(found) for found in re.findall(pattern, path.read_text(encoding="ascii"))]
    except OSError:  # there is no such file on this system
        return []
