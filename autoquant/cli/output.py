"""Text on standard output and standard error: rows with labels, tables, and how they are written.

Tables become paragraphs on narrow screens; writing works also where the reader has left or the disk is full. Whatever
reaches a terminal goes through here, and is printable (messages.py).
"""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from autoquant.errors import UsageError
from autoquant.messages import UNKNOWN, printable
from autoquant.quiet import show

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

WIDEST = 100
"""Columns beyond which a sentence is hard to read."""
UNLIMITED = 10_000
"""Columns that no line fills."""
STYLES = MappingProxyType({"certified": "bold green", "met": "bold green", "missed": "bold red"})
"""Label -> its style; others are bold."""
Row = tuple[str, str]
"""A label, which may be empty, and its text."""
Block = Sequence["Table | Text | str"]
"""Parts of a page with no empty line between them."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below headings: the first `words` columns flush left, the others, numbers, flush right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 2

    def lines(self) -> list[str]:
        """One line for the headings, and one a row.

        >>> Table(("a", "b"), [("ccc", "10")], words=1).lines()
        ['a     b', 'ccc  10']
        """
        widths = [max(map(len, column)) for column in zip(self.headings, *self.rows, strict=True)]
        return [
            "  ".join(
                f"{cell:{'<' if place < self.words else '>'}{width}}"
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.headings, *self.rows)
        ]

    def paragraphs(self) -> list[str]:
        """The first heading, then two lines a row: its first cell, and the others, as far as known, with headings.

        >>> Table(("a", "b", "c"), [("ccc", "10", UNKNOWN)]).paragraphs()
        ['a', 'ccc', '  b 10']
        """
        found = [self.headings[0]]
        for first, *others in self.rows:
            named = zip(self.headings[1:], others, strict=True)
            known = [f"{heading} {cell}" for heading, cell in named if heading and cell != UNKNOWN]
            found += [first, "  " + ", ".join(known)]
        return found


class Printable:
    """What Rich renders, its text printable: the escape sequences are Rich's own."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for text, style, control in console.render(self._renderable, options):
            yield Segment(text if control else printable(text), style, control)


class Page(str):
    """A text that is printable but for Rich's own escape sequences."""


def labelled(rows: Iterable[Row], *, columns: int | None = None) -> list[Text]:
    """Rows with their labels, which may be empty, in front, folded to so many columns."""
    from rich.text import Text

    known = list(rows)
    width = max(len(label) for label, _ in known)
    found = []
    for label, words in known:
        line = Text(wrapped(f"{label:{width}}  {words}", columns, indent=width + 2))
        line.stylize(STYLES.get(label, "bold"), 0, width)
        found.append(line)
    return found


def page(blocks: Iterable[Block], *, columns: int | None) -> Page:
    """Blocks with an empty line between them, coloured where standard output is a terminal, in so many columns.

    A table that is wider becomes paragraphs; without `columns` nothing is folded: names are there to be copied.
    """
    from rich.console import Console, Group
    from rich.text import Text

    lines: list[Text] = []
    for block in filter(None, blocks):
        lines += [Text()] if lines else []
        for part in block:
            if isinstance(part, Text):
                lines.append(part)
            elif isinstance(part, str):
                lines.append(Text(wrapped(part, columns)))
            else:
                head, *rows = part.lines()
                if columns is not None and max(map(len, (head, *rows))) > columns:
                    head, *rows = part.paragraphs()
                lines += [Text(wrapped(head, columns), "bold"), *(Text(wrapped(row, columns)) for row in rows)]
    file = io.StringIO()
    console = Console(
        file=file, width=UNLIMITED, force_terminal=sys.stdout.isatty() or None, highlight=False, markup=False
    )
    console.print(Printable(Group(*lines)), soft_wrap=True)
    return Page(file.getvalue())


def markdown(text: str, *, columns: int) -> str:
    """Markdown laid out for a terminal of so many columns, no wider than a sentence can be read."""
    from rich.console import Console
    from rich.markdown import Markdown

    file = io.StringIO()
    Console(file=file, width=min(columns, WIDEST), force_terminal=True).print(Markdown(text))
    return file.getvalue()


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
            sys.stdout.write((text if isinstance(text, Page) else printable(text)).rstrip("\n") + "\n")
    except OSError as error:
        _close(sys.stdout)
        what = f"cannot be written ({error.strerror})"
        raise UsageError("standard output", what, hint="free the disk, or write elsewhere") from error


def note(text: str) -> None:
    """Write lines to standard error, at once; no trouble with that ever ends a search."""
    try:
        show(printable(text).rstrip("\n") + "\n", sys.stderr)
    except OSError:
        _close(sys.stderr)


def complain(text: str) -> None:
    """Write to standard error: wrapped in a terminal, as it is in a log."""
    screen = terminal_columns(sys.stderr)
    note("\n".join(wrapped(line, min(screen, WIDEST) if screen else None) for line in printable(text).splitlines()))


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
