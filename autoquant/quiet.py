"""Nothing on the screen: progress that is ignored, and what C++ writes to standard output and error past Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = threading.Lock()


def no_progress(*progress: object) -> None:
    """Ignore progress."""


@contextmanager
def stderr_held_back(*, shown_if_it_fails: bool = False) -> Iterator[None]:
    """Drop what is written to descriptor 2 within; `shown_if_it_fails` shows it after all when an exception passes."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception:
            if shown_if_it_fails:
                said.seek(0)
                with open(kept, "wb", closefd=False) as stderr:
                    shutil.copyfileobj(said, stderr)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def stdout_without(words: bytes) -> Iterator[None]:
    """Leave `words` out of what is written to descriptor 1 within; all else follows when it is over.

    What another thread writes meanwhile comes late, but comes.
    """
    with _STDOUT, tempfile.TemporaryFile() as said:
        _flush_stdout()
        kept = os.dup(1)
        os.dup2(said.fileno(), 1)
        try:
            yield
        finally:
            _flush_stdout()
            os.dup2(kept, 1)
            said.seek(0)
            with os.fdopen(kept, "wb") as stdout:
                stdout.write(said.read().replace(words, b""))


def _flush_stdout() -> None:
    """What Python and C have written but not yet handed on."""
    sys.stdout.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
