"""Decoding on all cores, in order, and only once for as many samples as memory has room for."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from autoquant.evaluation.data.batch import Sample

MOST = 2**30
"""Bytes of decoded samples that a source keeps at most."""
AROUND = 512
"""Bytes that the objects around a sample's values take, about."""


class Decoder:
    """Samples by number, from a function that decodes one; those decoded first are kept for later passes.

    At most `room` bytes are kept; by default those of `room_for_samples`. Kept samples must not be written to.
    """

    def __init__(self, room: int | None = None) -> None:
        self._room = room_for_samples() if room is None else room
        self._kept: dict[int, Sample] = {}

    def samples(self, decode: Callable[[int], Sample], numbers: Iterable[int], ahead: int) -> Iterator[Sample]:
        """The samples of these numbers in this order; up to `ahead` of them are decoded before they are asked for.

        `decode` is called from several threads at once. What it raises arrives in place of its sample. The threads end
        with the iterator: at its end, when it is closed, and when it is given up.
        """
        threads = cores()
        waiting: deque[tuple[int, Sample | Future[Sample]]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="autoquant-decode")
        try:
            for number in map(int, numbers):
                kept = self._kept.get(number)
                waiting.append((number, pool.submit(decode, number) if kept is None else kept))
                if len(waiting) > max(ahead, threads):
                    yield self._take(*waiting.popleft())
            while waiting:
                yield self._take(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, number: int, made: Sample | Future[Sample]) -> Sample:
        if isinstance(made, Sample):
            return made
        sample = made.result()
        size = AROUND + sum(array.nbytes for array in sample.inputs.values())
        if size <= self._room and number not in self._kept:
            self._room -= size
            self._kept[number] = sample
        return sample


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for_samples(root: Path = Path("/")) -> int:
    """A quarter of the memory that is free, in bytes, at most MOST; the limit of a container (cgroup 2) counts.

    Where a system does not say how much is free, a quarter of MOST.
    """
    group = root / "sys" / "fs" / "cgroup"
    free = [1024 * kib for kib in _numbers(root / "proc" / "meminfo", r"MemAvailable:\s*(\d+) kB")]
    limit, used = _numbers(group / "memory.max", r"^\d+"), _numbers(group / "memory.current", r"^\d+")
    free += [most - now for most, now in zip(limit, used, strict=False)]  # no limit is the word "max"
    return max(0, min(MOST, min(free) // 4)) if free else MOST // 4


def _numbers(path: Path, pattern: str) -> list[int]:
    try:
        return [int(found) for found in re.findall(pattern, path.read_text(encoding="ascii"))]
    except OSError:  # there is no such file on this system
        return []
