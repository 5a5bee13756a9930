"""Lines of progress from a process of their own, while no thread of this one can write any.

TensorFlow's converter keeps Python's lock for as long as it works, which is minutes for a large model. This file is run
as a script too, so it imports nothing of the package; it ends with its standard input.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 10.0
"""Seconds between two lines of progress in a log."""
PERIOD = 1.0
"""Seconds between two looks at the clock."""
STUCK = 3 * PERIOD
"""Seconds without a word from the process, after which it can write nothing itself."""


def duration(seconds: float) -> str:
    """Time as `--timeout` takes it.

    >>> duration(0.44), duration(12.3), duration(200), duration(7500)
    ('0.4s', '12s', '3m20s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s" if seconds >= 9.95 else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def log_line(elapsed: float, text: str) -> str:
    """A line of a log.

    >>> log_line(72.0, "baseline: 1/2")
    '[ 1m12s] baseline: 1/2'
    """
    return f"[{duration(elapsed):>6}] {text}"


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is going on: seconds since the log began, since the phase `what` did, and since the last line."""

    elapsed: float
    since: float
    silent: float
    what: str

    def __str__(self) -> str:
        return f"{self.elapsed} {self.since} {self.silent} {self.what}"

    @classmethod
    def parse(cls, text: str) -> Pulse:
        """Read what `str` gives."""
        elapsed, since, silent, what = text.rstrip("\n").split(" ", 3)
        return cls(float(elapsed), float(since), float(silent), what)

    def line(self, waited: float) -> str:
        """What to write after so many seconds without another one."""
        return log_line(self.elapsed + waited, f"{self.what}: {duration(self.since + waited)} so far")


class Watch:
    """Writes in place of a process that was heard of last when `hear` was called."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._last: tuple[Pulse, float, float] | None = None

    def hear(self, pulse: Pulse) -> None:
        """The process is there, and writes itself."""
        now = self._clock()
        self._last = pulse, now, now - pulse.silent

    def look(self) -> None:
        """Write a line if one is due."""
        if self._last is None:
            return
        (pulse, heard, wrote), now = self._last, self._clock()
        if now - heard >= STUCK and now - wrote >= PATIENCE:
            self._last = pulse, heard, now
            self._write(pulse.line(now - heard))


@contextmanager
def watched() -> Iterator[Callable[[Pulse], None]]:
    """Inside, a process writes to standard error whenever the function given here is not called for long."""
    command = [sys.executable, "-I", "-S", str(Path(__file__))]
    # In a session of its own: Ctrl-C is not for it.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
    assert process.stdin is not None
    pipe = process.stdin

    def beat(pulse: Pulse) -> None:
        with suppress(OSError):  # it was killed: the log is less dense then, and nothing else
            pipe.write(f"{pulse}\n".encode())

    try:
        yield beat
    finally:  # not `with`, which after Ctrl-C waits for a quarter of a second alone
        with suppress(OSError):
            pipe.close()
        process.wait()


def _run() -> None:
    def write(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    watch = Watch(write, time.monotonic)

    def look() -> None:
        while True:
            time.sleep(PERIOD)
            watch.look()

    threading.Thread(target=look, daemon=True).start()
    for text in sys.stdin:
        watch.hear(Pulse.parse(text))


if __name__ == "__main__":
    _run()
