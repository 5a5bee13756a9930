"""Decoding in threads: the same samples in the same order, errors in their place, memory bounded, no thread left."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Sample
from autoquant.evaluation.data.decoding import MAX_ROOM, OVERHEAD, Decoder, cores, room_for_samples

GIB = 2**30


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    gc.collect()
    assert set(threading.enumerate()) <= before


class Decoding:
    """Decodes a number to an array of `size` bytes of it, and counts; some numbers are broken."""

    def __init__(self, size: int = 8, broken: int | None = None, pause: Callable[[int], float] | None = None) -> None:
        self.calls: list[int] = []
        self._size, self._broken, self._pause = size, broken, pause

    def __call__(self, number: int) -> Sample:
        self.calls.append(number)
        if self._pause:
            time.sleep(self._pause(number))
        if number == self._broken:
            raise DataError(f"image {number}", "cannot be decoded")
        return Sample({"x": np.full(self._size, number, np.uint8)}, np.asarray(number))


def numbers(samples: Iterator[Sample]) -> list[int]:
    return [int(sample.inputs["x"][0]) for sample in samples]


@given(st.lists(st.integers(0, 200), max_size=30), st.integers(1, 9), st.integers(0, 20_000))
def test_order_is_kept_whatever_is_kept_in_memory(wanted: list[int], ahead: int, room: int) -> None:
    decoder = Decoder(room)
    for _ in range(2):
        assert numbers(decoder.samples(Decoding(), wanted, ahead)) == wanted


def test_order_is_kept_where_later_samples_are_ready_sooner() -> None:
    decode = Decoding(pause=lambda number: 0.02 if number % 3 == 0 else 0.0)
    assert numbers(Decoder(0).samples(decode, range(12), 6)) == list(range(12))


def test_threads_decode_at_the_same_time() -> None:
    together = threading.Barrier(cores())  # breaks, and decode raises, unless all threads meet there

    def decode(number: int) -> Sample:
        together.wait(60)
        return Sample({"x": np.full(1, number)}, None)

    assert numbers(Decoder(0).samples(decode, range(3 * cores()), 4)) == list(range(3 * cores()))


@pytest.mark.parametrize("room", [0, GIB])
def test_an_error_takes_the_place_of_its_sample_in_every_pass(room: int) -> None:
    decoder, decode = Decoder(room), Decoding(broken=5)
    for _ in range(3):
        samples = decoder.samples(decode, range(9), 8)
        assert [int(next(samples).inputs["x"][0]) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match="image 5: cannot be decoded"):
            next(samples)


@pytest.mark.parametrize("ahead", [1, 7, 50])
def test_no_more_is_decoded_than_asked_for(ahead: int) -> None:
    decode = Decoding()
    for taken, _ in enumerate(Decoder(0).samples(decode, range(200), ahead), start=1):
        assert len(decode.calls) <= taken + max(ahead, cores())


def test_kept_samples_are_not_decoded_again() -> None:
    decode, decoder = Decoding(), Decoder(GIB)
    list(decoder.samples(decode, [3, 4, 5], 2))
    assert numbers(decoder.samples(decode, [2, 3, 5, 6], 2)) == [2, 3, 5, 6]
    assert sorted(decode.calls) == [2, 3, 4, 5, 6]


def test_as_many_are_kept_as_there_is_room_for() -> None:
    decode, decoder = Decoding(size=1000), Decoder(3 * (1000 + OVERHEAD) + 999)
    list(decoder.samples(decode, range(10), 4))
    decode.calls.clear()
    assert numbers(decoder.samples(decode, range(10), 4)) == list(range(10))
    assert sorted(decode.calls) == list(range(3, 10))


def closed(samples: Iterator[Sample]) -> None:
    samples.close()  # type: ignore[attr-defined]


def dropped(samples: Iterator[Sample]) -> None:
    del samples


@pytest.mark.parametrize("give_up", [closed, dropped])
def test_an_iterator_given_up_ends_its_threads(give_up: Callable[[Iterator[Sample]], None]) -> None:
    before, decode = set(threading.enumerate()), Decoding(pause=lambda number: 0.1 if number else 0.0)
    given = [Decoder(0).samples(decode, range(1000), 500)]
    next(given[0])
    assert set(threading.enumerate()) > before
    give_up(given.pop())
    assert set(threading.enumerate()) <= before
    assert len(decode.calls) < 100  # what had not begun never does


def system(root: Path, free: int | None, limit: str | None = None, used: int = 0) -> Path:
    """The files that Linux has of memory; `free` in KiB."""
    if free is not None:
        (root / "proc").mkdir()
        (root / "proc" / "meminfo").write_text(f"MemTotal:  99999999 kB\nMemAvailable:   {free} kB\nBuffers: 1 kB\n")
    if limit is not None:
        group = root / "sys" / "fs" / "cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
    return root


@pytest.mark.parametrize(
    ("free", "limit", "used", "room"),
    [
        (4 * 2**20, None, 0, GIB),
        (2 * 2**20, None, 0, GIB // 2),
        (64 * 2**20, None, 0, MAX_ROOM),
        (64 * 2**20, "max", 5, MAX_ROOM),
        (64 * 2**20, str(3 * GIB), 1 * GIB, GIB // 2),
        (64 * 2**20, str(GIB), GIB + 5, 0),
        (None, None, 0, MAX_ROOM // 4),
    ],
)
def test_a_quarter_of_what_is_free(tmp_path: Path, free: int | None, limit: str | None, used: int, room: int) -> None:
    assert room_for_samples(system(tmp_path, free, limit, used)) == room


def test_here_there_is_some_room() -> None:
    assert 0 < room_for_samples() <= MAX_ROOM
