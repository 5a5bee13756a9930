"""Who owns a search: the one process that proposes, decides and certifies. A second one is refused while it lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from autoquant.errors import RunError
from autoquant.formats.codec import encode
from autoquant.tuning.events import Listener, reporter
from autoquant.tuning.fleet.board import OWNER, PERIOD, Board, Dismissed, Member
from autoquant.tuning.fleet.messages import LEFT, Process, process_of

SILENCE = 90.0
"""Seconds without a sign of life after which an owner is taken to be dead: a converter may keep it silent for long."""


@dataclass
class Ownership:
    """The place of the owner on the board; `gone` is set where another took it. `why` is told when it leaves."""

    member: int
    gone: threading.Event
    why: str = "was interrupted"

    def check(self) -> None:
        """Raise RunError where this process is the owner no more."""
        if self.gone.is_set():
            hint = "what has ended is kept; the other process goes on"
            raise RunError("the search", "another process has taken it over, as this one was silent", hint=hint)


@contextmanager
def owned(
    board: Board,
    listener: Listener,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    *,
    silence: float = SILENCE,
    period: float = PERIOD,
) -> Iterator[Ownership]:
    """Be the owner within. Raises RunError where another owner lives."""
    for other in board.members(OWNER):
        _outlive(board, other, listener, clock, sleep, silence)
    member = board.join(OWNER, encode(Process.own()))
    try:
        first = board.members(OWNER)[0]
        if first.id != member:  # several were as quick
            raise _refusal(first)
        with board.alive(member, period=period) as gone:
            ownership = Ownership(member, gone)
            try:
                yield ownership
            finally:
                with suppress(Dismissed):
                    board.say(member, LEFT, ownership.why)
    finally:
        board.leave(member)


def _outlive(
    board: Board,
    other: Member,
    listener: Listener,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    silence: float,
) -> None:
    """Wait until another owner is known to be dead, as it gives no sign of life, or is no process of this machine."""
    process, begin = process_of(other), clock()
    report = reporter(listener, f"waiting whether {process}, which owned the search, still lives")
    while process.lives is None and clock() - begin < silence:
        report(round(clock() - begin), round(silence))
        sleep(min(1.0, silence / 4))
        now = board.find(other.id)
        if not now.here:
            return
        if now.beat != other.beat:
            raise _refusal(now)
    if process.lives:
        raise _refusal(other)
    board.leave(other.id, dead=True)


def _refusal(other: Member) -> RunError:
    hint = "wait for it, or end it"
    return RunError("the search", f"is owned by {process_of(other)}, which lives", hint=hint)
