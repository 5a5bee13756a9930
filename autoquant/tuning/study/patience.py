"""Waiting for a storage that is away: a server that restarts, a network that is cut, a disk that is not mounted."""

from __future__ import annotations

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

    Raises StorageError after `limit` seconds.
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

    def call(self, attempt: Callable[[int], T], lost: Callable[[Exception], bool]) -> T:
        """What `attempt` returns, which is told how often it was tried; it is again after errors that mean `lost`."""
        begin, wait, failures = self._clock(), FIRST, 0
        while True:
            try:
                found = attempt(failures)
            except Exception as error:
                if not lost(error):
                    raise
                self.away += 1
                failures += 1
                gone = self._clock() - begin
                if gone >= self._limit:
                    what = f"was away for {duration(gone)} ({cause(error)})"
                    hint = "see that it runs and can be reached; nothing that has ended is lost"
                    raise StorageError(self._where, what, hint=hint) from error
                if failures == 1:
                    self._warn(f"{self._where} is away ({cause(error)}): waiting for it, {duration(self._limit)} long")
                self._sleep(min(wait, self._limit - gone))
                wait = min(2.0 * wait, LONGEST)
            else:
                if failures:
                    self._warn(f"{self._where} is there again after {duration(self._clock() - begin)}")
                return found


def cause(error: BaseException) -> str:
    """The first line of what was wrong at first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(str(getattr(error, "orig", None) or error))
