"""Nothing on the screen: progress that is ignored, and what C++ writes to standard output and error past Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

_STDOUT = threading.Lock()
_STDERR = threading.Lock()
_SHOWN: list[int] = []
"""Descriptors that lead where descriptor 2 leads while that is held back, the outermost first."""


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
    with tempfile.TemporaryFile() as said, _redirected_stderr(said.fileno()) as kept:
        try:
            yield
        except Exception:
            if shown_if_it_fails:
                said.seek(0)
                with open(kept, "wb", closefd=False) as stderr:
                    shutil.copyfileobj(said, stderr)
            raise


@contextmanager
def _redirected_stderr(other: int) -> Iterator[int]:
    """`redirected` for descriptor 2, never while `show` writes.

    The lock is not held while a stream is flushed: a live screen has a lock of its own, and draws from its own thread.
    """
    sys.stderr.flush()
    with ExitStack() as stack:
        with _STDERR:
            kept = stack.enter_context(redirected(2, other, no_progress))
            _SHOWN.append(kept)
        try:
            yield kept
        finally:
            sys.stderr.flush()
            with _STDERR:
                _SHOWN.remove(kept)
                stack.close()


def show(text: str, stream: TextIO) -> None:
    """Write to standard error, which `stream` is, at once: also while what others write there is held back."""
    with _STDERR:
        if _SHOWN:
            with open(_SHOWN[0], "w", encoding=stream.encoding, errors="replace", closefd=False) as stderr:
                stderr.write(text)
            return
    stream.write(text)
    stream.flush()


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
