"""Writing to standard output and standard error, whatever becomes of who reads them."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from autoquant.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDEST = 100
"""Columns beyond which a sentence is hard to read."""
UNLIMITED = 10_000
"""Columns that no line fills."""


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


def painted(*parts: RenderableType) -> str:
    """Text for standard output, coloured where that is a terminal. Nothing is folded: names are there to be copied."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(
        file=file, width=UNLIMITED, force_terminal=sys.stdout.isatty() or None, highlight=False, markup=False
    )
    console.print(*parts, sep="\n", soft_wrap=True)
    return file.getvalue()


def plain_table(*headings: str, numbers: Sequence[str] = ()) -> Table:
    """A table without lines: columns of words, then those of `numbers`, which end below each other."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def complain(text: str) -> None:
    """Write to standard error: wrapped in a terminal, as it is in a log."""
    screen = terminal_columns(sys.stderr)
    note("\n".join(wrapped(line, min(screen, WIDEST) if screen else None) for line in text.splitlines()))


def wrapped(line: str, columns: int | None, *, indent: int = 4) -> str:
    """Break a line between words where it is longer than `columns`; what continues it is indented.

    >>> print(wrapped("autoquant: error: model.pb: does not exist", 30))
    autoquant: error: model.pb:
        does not exist
    """
    if columns is None or len(line) <= columns:
        return line
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


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
