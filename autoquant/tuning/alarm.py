"""An alarm in the main thread, whatever that does meanwhile: a function of the user's may wait for ever."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PERIOD = 1.0
"""Seconds from one ring to the next: an exception may be lost in a function that catches all."""


@contextmanager
def alarm(seconds: float, ring: Callable[[], None]) -> Iterator[None]:
    """Inside, call `ring` after so many seconds and then every second; what it raises ends what is going on.

    Python's waits and locks end so, a kernel that hangs does not. Nothing happens where the time is infinite, in other
    threads than the main one, and on systems without such a timer.
    """
    main = threading.current_thread() is threading.main_thread()
    if math.isinf(seconds) or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        ring()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), PERIOD)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        finally:  # it may ring in just that moment
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
