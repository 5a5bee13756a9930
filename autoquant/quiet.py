"""Nothing on the screen: progress that is ignored, and what C++ writes to standard output and error past Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STDOUT = threading.Lock()


def no_progress(*progress: object) -> None:
    """Ignore progress."""


@contextmanager
def redirected(descriptor: int, other: int, flush: Callable[[], None]) -> Iterator[int]:
    """Let what is written to a descriptor within go to another; gives one that leads where it went before.

    `flush` hands on what is written but held by whoever writes, before and at the end.
    """
    flush()
    kept = os.dup(descriptor)
    os.dup2(other, descriptor)
    try:
        yield kept
    finally:
        flush()
        os.dup2(kept, descriptor)
        os.close(kept)


@contextmanager
def stderr_held_back(*, shown_if_it_fails: bool = False) -> Iterator[None]:
    """Drop what is written to descriptor 2 within; `shown_if_it_fails` shows it after all when an exception passes."""
    with tempfile.TemporaryFile() as said, redirected(2, said.fileno(), sys.stderr.flush) as kept:
        try:
            yield
        except Exception:
            if shown_if_it_fails:
                said.seek(0)
                with open(kept, "wb", closefd=False) as stderr:
                    shutil.copyfileobj(said, stderr)
            raise


@contextmanager
def stdout_without(words: bytes) -> Iterator[None]:
    """Leave `words` out of what is written to descriptor 1 within; all else follows when it is over.

    What another thread writes meanwhile comes late, but comes.
    """
    with _STDOUT, tempfile.TemporaryFile() as said:
        try:
            with redirected(1, said.fileno(), _flush_stdout):
                yield
        finally:
            said.seek(0)
            with open(1, "wb", closefd=False) as stdout:
                stdout.write(said.read().replace(words, b""))


def _flush_stdout() -> None:
    """What Python and C have written but not yet handed on."""
    sys.stdout.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
