"""Reading the next batch while the model runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def prefetched(work: Callable[[T], R], items: Iterable[T], *, threaded: bool = True) -> Iterator[Iterator[tuple[T, R]]]:
    """Pairs (item, work(item)), in order; while `work` runs in a thread of its own, the caller's makes the next item.

    So of all that a user may have written (data, preprocessing, metrics) nothing leaves the caller's thread, and no two
    calls of `work` run at once. One item is made ahead of the pair that is waited for, no more. An exception of `items`
    or of `work` is raised where it would be without threads: after all pairs before it. However the block is left,
    `work` has ended then, and with it the thread; what it worked on may be closed. Without `threaded` all of it takes
    place in the caller's thread, one after the other, as suits items that cost nothing to make.
    """
    if not threaded:
        yield ((item, work(item)) for item in items)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="autoquant-work")
    try:
        yield _pairs(pool, work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _pairs(pool: Executor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
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
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) > 1:
            yield _done(*waiting.popleft())
    while waiting:
        yield _done(*waiting.popleft())
    if failure is not None:
        raise failure


def _done(item: T, future: Future[R]) -> tuple[T, R]:
    return item, future.result()
