"""Work in other threads whose results come in order: the next batch is read while the model runs, samples are decoded
on all cores, and as many are cached as memory has room for.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.batch import Batch, Sample, content_of
from autoquant.evaluation.data.sample_cache import SampleCache

MAX_ROOM = 2**30
"""Bytes of decoded samples that a source caches at most."""
OVERHEAD = 512
"""Bytes that the objects around a sample's values take, about."""
T = TypeVar("T")
R = TypeVar("R")


class Decoder:
    """Samples by number, from a function that decodes one; those decoded first are cached for later passes.

    At most `room` bytes are cached in memory; by default those of `room_for_samples`. As many others as there is room
    for `on_disk` are cached there. Cached samples must not be written to.
    """

    def __init__(self, room: int | None = None, on_disk: CacheRoom | None = None) -> None:
        self._room = room_for_samples() if room is None else room
        self._cached: dict[int, Sample] = {}
        self._disk = None if on_disk is None else SampleCache(on_disk)
        self._places: dict[int, int] = {}  # on the disk, by number
        self.full = False
        """Whether there was no room for a sample."""

    def samples(self, decode: Callable[[int], Sample], numbers: Iterable[int], ahead: int) -> Iterator[Sample]:
        """The samples of these numbers in this order; up to `ahead` of them are decoded before they are asked for.

        `decode` is called from several threads at once. What it raises arrives in place of its sample. The threads end
        with the iterator: at its end, when it is closed, and when it is given up.
        """
        threads = cores()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="autoquant-decode")

        def start(number: int) -> Future[Sample]:
            known = self._known(number)
            if known is None:
                return pool.submit(decode, number)
            done = Future[Sample]()
            done.set_result(known)
            return done

        try:
            for number, sample in in_order(start, map(int, numbers), max(ahead, threads)):
                self._keep(number, sample)
                yield sample
        finally:
            pool.shutdown(cancel_futures=True)

    def _known(self, number: int) -> Sample | None:
        if number not in self._places or self._disk is None:
            return self._cached.get(number)
        self._disk.flush()
        if self._places[number] >= len(self._disk):  # there was no room for it in the end
            return None
        (batch,) = self._disk.read(np.array([self._places[number]]), 1)
        inputs = {name: array[0, ...] for name, array in batch.inputs.items()}
        return Sample(inputs, None if batch.labels is None else batch.labels[0])

    def _keep(self, number: int, sample: Sample) -> None:
        if number in self._cached or number in self._places:
            return
        taken = OVERHEAD + sum(memoryview(content_of(array)).nbytes for array in sample.inputs.values())
        if taken <= self._room:
            self._room -= taken
            self._cached[number] = sample
        elif self._disk is not None and not self._disk.full:
            label = None if sample.label is None else np.asarray(sample.label)[np.newaxis]
            inputs = {name: array[np.newaxis] for name, array in sample.inputs.items()}
            self._places[number] = len(self._disk)
            self._disk.add(Batch(inputs, label))
        else:
            self.full = True


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for_samples(root: Path = Path("/")) -> int:
    """A quarter of the memory that is free, in bytes, at most MAX_ROOM; of MAX_ROOM where a system does not say."""
    free = free_memory(root)
    return MAX_ROOM // 4 if free is None else max(0, min(MAX_ROOM, free // 4))


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that are free; the limit of a container (cgroup 2) counts. None where a system does not say."""
    group = root / "sys" / "fs" / "cgroup"
    free = [1024 * kib for kib in _numbers(root / "proc" / "meminfo", r"MemAvailable:\s*(\d+) kB")]
    limit, used = _numbers(group / "memory.max", r"^\d+"), _numbers(group / "memory.current", r"^\d+")
    free += [most - now for most, now in zip(limit, used, strict=False)]  # no limit is the word "max"
    return min(free, default=None)


def _numbers(path: Path, pattern: str) -> list[int]:
    try:
        return [int(found) for found in re.findall(pattern, path.read_text(encoding="ascii"))]
    except OSError:  # there is no such file on this system
        return []


def in_order(start: Callable[[T], Future[R]], items: Iterable[T], ahead: int) -> Iterator[tuple[T, R]]:
    """Pairs (item, result of start(item)), in order; `ahead` more are started before the one that is waited for.

    An exception of `items` or of the work is raised where it would be without threads: after all pairs before it.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    failure: Exception | None = None
    source = iter(items)
    while failure is None:
        try:
            item = next(source)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        waiting.append((item, start(item)))
        if len(waiting) > ahead:
            yield _done(*waiting.popleft())
    while waiting:
        yield _done(*waiting.popleft())
    if failure is not None:
        raise failure


@contextmanager
def prefetched(work: Callable[[T], R], items: Iterable[T], *, threaded: bool = True) -> Iterator[Iterator[tuple[T, R]]]:
    """Pairs (item, work(item)), in order; while `work` runs in a thread of its own, the caller's makes the next item.

    So of all that a user may have written (data, preprocessing, metrics) nothing leaves the caller's thread, and no two
    calls of `work` run at once. One item is made ahead of the pair that is waited for, no more. However the block is
    left, `work` has ended then, and with it the thread; what it worked on may be closed. Without `threaded` all of it
    takes place in the caller's thread, one after the other, as suits items that cost nothing to make.
    """
    if not threaded:
        yield ((item, work(item)) for item in items)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="autoquant-work")
    try:
        yield in_order(lambda item: pool.submit(work, item), items, 1)
    finally:
        pool.shutdown(cancel_futures=True)


def _done(item: T, future: Future[R]) -> tuple[T, R]:
    return item, future.result()
