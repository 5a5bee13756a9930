"""Pairs of items and what a thread makes of them: as without a thread, and without a thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autoquant.evaluation.data.decoding import prefetched


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def plain(work: Callable[[Any], Any], items: Callable[[], Iterator[Any]]) -> tuple[list[Any], str | None]:
    """What a loop without threads sees: pairs, and how it ended."""
    seen: list[Any] = []
    try:
        for item in items():
            seen.append((item, work(item)))  # noqa: PERF401 - what came before an exception is kept
    except Exception as error:
        return seen, repr(error)
    return seen, None


def ours(
    work: Callable[[Any], Any], items: Callable[[], Iterator[Any]], threaded: bool
) -> tuple[list[Any], str | None]:
    seen: list[Any] = []
    try:
        with prefetched(work, items(), threaded=threaded) as pairs:
            for pair in pairs:
                seen.append(pair)  # noqa: PERF402 - likewise
    except Exception as error:
        return seen, repr(error)
    return seen, None


def counting(stop: int, fails: int | None = None) -> Callable[[], Iterator[int]]:
    def items() -> Iterator[int]:
        for number in range(stop):
            if number == fails:
                raise KeyError(f"item {number}")
            yield number

    return items


def failing_at(bad: int | None) -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == bad:
            raise ZeroDivisionError(f"work {item}")
        return item * item

    return work


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("stop", [0, 1, 2, 5])
@pytest.mark.parametrize("bad_item", [None, 0, 1, 2, 4])
@pytest.mark.parametrize("bad_work", [None, 0, 1, 2, 4])
def test_the_same_pairs_and_the_same_end_as_of_a_loop(
    stop: int, bad_item: int | None, bad_work: int | None, threaded: bool
) -> None:
    items, work = counting(stop, bad_item), failing_at(bad_work)
    assert ours(work, items, threaded) == plain(work, items)


def test_without_a_thread_all_stays_in_the_callers() -> None:
    with prefetched(lambda _: threading.get_ident(), range(3), threaded=False) as pairs:
        assert {worker for _, worker in pairs} == {threading.get_ident()}


def test_work_leaves_the_thread_and_items_do_not() -> None:
    here, made = threading.get_ident(), []

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(threading.get_ident())
            yield number

    with prefetched(lambda _: threading.get_ident(), items()) as pairs:
        workers = {worker for _, worker in pairs}
    assert set(made) == {here} and len(workers) == 1 and here not in workers


def test_the_next_item_is_made_while_work_runs() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    def work(item: int) -> bool:
        return made.wait(60)  # without overlap nobody would set it while item 0 is worked on

    with prefetched(work, items()) as pairs:
        assert [ok for _, ok in pairs] == [True, True]


def test_no_more_than_one_item_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            made.append(number)
            yield number

    with prefetched(lambda item: item, items()) as pairs:
        for item, _ in pairs:
            assert len(made) <= item + 2


def test_calls_of_work_never_meet() -> None:
    inside: list[int] = []

    def work(item: int) -> int:
        inside.append(item)
        time.sleep(0.001)
        assert inside == [item]
        inside.remove(item)
        return item

    with prefetched(work, range(20)) as pairs:
        assert [result for _, result in pairs] == list(range(20))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, GeneratorExit])
def test_when_the_block_is_left_work_has_ended(error: type[BaseException]) -> None:
    running: list[int] = []
    started: list[int] = []

    def work(item: int) -> int:
        running.append(item)
        started.append(item)
        time.sleep(0.01)
        running.remove(item)
        return item

    with pytest.raises(error), prefetched(work, range(100)) as pairs:
        next(pairs)
        raise error
    assert running == [] and len(started) <= 3


def test_an_interrupt_while_an_item_is_made() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), prefetched(lambda item: item, items()) as pairs:
        list(pairs)


def test_an_exception_keeps_its_place() -> None:
    with pytest.raises(ZeroDivisionError) as caught, prefetched(failing_at(1), range(3)) as pairs:
        list(pairs)
    assert caught.traceback[-1].name == "work"
