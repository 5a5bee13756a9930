"""Writing to standard output and standard error, also where the reader has left or the disk is full."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from autoquant.cli.tables import wrapped
from autoquant.errors import UsageError

WIDEST = 100
"""Columns beyond which a sentence is hard to read."""


@contextmanager
def reader_may_leave(stream: TextIO) -> Iterator[None]:
    """Let a stream that nobody reads any more, as with `| head`, swallow the rest.

    A search goes on without its reader; the exit code and the run's folder still tell what came out.
    """
    try:
        try:
            yield
        finally:
            stream.flush()
    except BrokenPipeError:
        _close(stream)


def say(text: str) -> None:
    """Write lines to standard output, at once. Raises UsageError when it is full."""
    try:
        with reader_may_leave(sys.stdout):
            sys.stdout.write(text.rstrip("\n") + "\n")
    except OSError as error:
        _close(sys.stdout)
        what = f"cannot be written ({error.strerror})"
        raise UsageError("standard output", what, hint="free the disk, or write elsewhere") from error


def note(text: str) -> None:
    """Write lines to standard error, at once; no trouble with that ever ends a search."""
    try:
        sys.stderr.write(text.rstrip("\n") + "\n")
        sys.stderr.flush()
    except OSError:
        _close(sys.stderr)


def complain(text: str) -> None:
    """Write to standard error: wrapped in a terminal, as it is in a log."""
    screen = terminal_columns(sys.stderr)
    note("\n".join(wrapped(line, min(screen, WIDEST) if screen else None) for line in text.splitlines()))


def terminal_columns(stream: TextIO) -> int | None:
    """The width of the terminal behind a stream; None where nobody looks at a screen."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else None
    except (OSError, ValueError):  # no file behind it
        return None


def _close(stream: TextIO) -> None:
    """Send what is still to come, and what Python flushes at its end, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
