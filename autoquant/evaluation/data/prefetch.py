"""Work in other threads whose results come in order: the next batch is read while the model runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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
