from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from autoquant.errors import RunError
from autoquant.formats.codec import encode
from autoquant.quiet import no_progress
from autoquant.tuning.fleet.board import BEAT, OWNER, Board
from autoquant.tuning.fleet.messages import Process
from autoquant.tuning.fleet.ownership import Ownership, owned


class Time:
    """A clock that sleeping moves; others act meanwhile."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now, self._meanwhile = 0.0, meanwhile

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._meanwhile()


def own(board: Board, time: Time | None = None) -> Ownership:
    time = time or Time()
    with owned(board, no_progress, time.clock, time.sleep, silence=10.0) as ownership:
        assert [one.id for one in board.members(OWNER)] == [ownership.member]
        ownership.check()
        ownership.why = "ended"
    return ownership


def elsewhere(number: int) -> Process:
    return Process("far", number, space="another machine")


def test_one_after_another(board: Board) -> None:
    assert own(board).member != own(board).member
    assert [one.said["left"] for one in board.everybody()] == ["ended", "ended"]


def test_an_owner_that_lives_elsewhere_is_heard(board: Board) -> None:
    other, beats = board.join(OWNER, encode(elsewhere(7))), [0]

    def beat() -> None:
        beats[0] += 1
        board.say(other, BEAT, [beats[0], "", 0.0])

    with pytest.raises(RunError, match=r"is owned by far \(process 7\), which lives"):
        own(board, Time(beat))
    assert [one.id for one in board.members(OWNER)] == [other]


def test_an_owner_that_is_silent_elsewhere_is_followed(board: Board) -> None:
    other, time = board.join(OWNER, encode(elsewhere(7))), Time()
    own(board, time)
    assert time.now >= 10.0 and not board.find(other).here


@pytest.mark.skipif(not Process.own().space, reason="numbers of processes cannot be compared here")
def test_an_owner_of_this_machine_is_known_to_live_or_not(board: Board) -> None:
    """By its number, without waiting; one of another container may have the same."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    board.join(OWNER, encode(replace(Process.own(), pid=process.pid)))
    with pytest.raises(RunError, match=f"process {process.pid}"):
        own(board)
    process.communicate(b"\n")
    time = Time()
    own(board, time)
    assert time.now == 0.0
    board.join(OWNER, encode(Process("box", os.getpid(), space="another container")))
    own(board, time)
    assert time.now >= 10.0


def test_of_two_that_begin_at_once_the_first_is_the_owner(board: Board) -> None:
    with owned(board, no_progress, Time().clock, Time().sleep) as first:
        late = Board(board._storage, "study")
        late.members = lambda role, members=board.members: members(role) if late_joined(board) else []  # type: ignore[method-assign, misc]
        with pytest.raises(RunError, match="is owned by"):
            own(late)
        first.check()


def late_joined(board: Board) -> bool:
    return len(board.members(OWNER)) > 1


def test_an_owner_that_was_taken_for_dead_is_told(board: Board) -> None:
    with owned(board, no_progress, Time().clock, Time().sleep, period=0.02) as ownership:
        board.leave(ownership.member, dead=True)
        assert ownership.gone.wait(10.0)
        with pytest.raises(RunError, match="another process has taken it over"):
            ownership.check()
