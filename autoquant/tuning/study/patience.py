"""Waiting for a storage that is away: a server that restarts, a network that is cut, a disk that is not mounted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from autoquant.errors import StorageError
from autoquant.messages import reason
from autoquant.pulse import duration
from autoquant.quiet import no_progress

T = TypeVar("T")
PATIENCE = 600.0
"""Seconds for which a storage may be away."""
FIRST, LONGEST = 0.5, 10.0
"""Seconds from one attempt to the next: at first, and at most, where each wait is twice the one before."""


class Patience:
    """Calls what needs a storage again until it is there. `away` counts how often it was not.

    Raises StorageError after `limit` seconds. A thread that had this error, or was interrupted while it waited, does
    not wait again until the storage was there: whoever leaves has several last words.
    """

    def __init__(
        self,
        where: str,
        warn: Callable[[str], None] = no_progress,
        *,
        limit: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.away = 0
        self._where = where
        self._warn = warn
        self._limit = limit
        self._clock = clock
        self._sleep = sleep
        self._since: dict[int, float] = {}
        self._interrupted: set[int] = set()
        self._told: float | None = None

    def call(self, attempt: Callable[[int], T], lost: Callable[[Exception], bool]) -> T:
        """What `attempt` returns, which is told how often it was tried; it is again after errors that mean `lost`."""
        wait, failures, thread = FIRST, 0, threading.get_ident()
        while True:
            begin = self._clock()
            try:
                found = attempt(failures)
            except Exception as error:
                if not lost(error):
                    raise
                self.away += 1
                failures += 1
                gone = self._clock() - self._since.setdefault(thread, begin)
                if thread in self._interrupted or gone >= self._limit:
                    what = f"was away for {duration(gone)} ({cause(error)})"
                    hint = "see that it runs and can be reached; nothing that has ended is lost"
                    raise StorageError(self._where, what, hint=hint) from error
                if self._told is None:  # one thread says so for all
                    self._told = begin
                    self._warn(f"{self._where} is away ({cause(error)}): waiting for it, {duration(self._limit)} long")
                self._wait(min(wait, self._limit - gone), thread)
                wait = min(2.0 * wait, LONGEST)
            else:
                self._interrupted.discard(thread)
                self._since.pop(thread, None)
                told, self._told = self._told, None
                if told is not None:
                    self._warn(f"{self._where} is there again after {duration(self._clock() - told)}")
                return found

    def _wait(self, seconds: float, thread: int) -> None:
        try:
            self._sleep(seconds)
        except BaseException:
            self._interrupted.add(thread)
            raise


def cause(error: BaseException) -> str:
    """The first line of what was wrong at first."""
    while (earlier := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = earlier
    return reason(str(getattr(error, "orig", None) or error))
