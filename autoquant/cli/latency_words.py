"""How latency is written on screens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from autoquant.cli.words import counted
from autoquant.evaluation.latency.latency import Latency, OperatorTime, Spread

NOTHING = "-"
SLOWEST = 5
"""Operators that are shown; result.json and --json have all."""


def milliseconds(seconds: float) -> str:
    """A time, with three digits that say something.

    >>> milliseconds(0.0000412), milliseconds(0.00512), milliseconds(1.2345), milliseconds(0.0)
    ('0.0412 ms', '5.12 ms', '1234 ms', '0 ms')
    """
    value = seconds * 1000
    decimals = max(2 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"{value:.{decimals}f} ms"


def spread_words(spread: Spread) -> str:
    """A time with its quartiles."""
    return f"{milliseconds(spread.median)} ({milliseconds(spread.low)} to {milliseconds(spread.high)})"


def conditions(latency: Latency) -> str:
    """How it was measured."""
    turns = f"median of {counted(latency.rounds, 'round')} in turns, with quartiles"
    return f"batch {latency.batch_size}, {counted(latency.threads, 'thread')}, {turns}"


def doubts(latency: Latency) -> Iterator[str]:
    """What there is to say against the measurement."""
    if latency.noise:
        yield f"not to be relied on: {latency.noise}; measure again on an idle machine"


def operator_cells(one: OperatorTime) -> tuple[str, ...]:
    """A line of a table: name, operator, time in each model, and after the first its speed in it."""
    times = [NOTHING if second is None else milliseconds(second) for second in one.seconds]
    speeds = [one.speed(number) for number in range(1, len(one.seconds))]
    shown = [NOTHING if speed is None else f"{speed:.2f}x" for speed in speeds]
    return (
        short_name(one.name),
        one.kind,
        times[0],
        *(cell for pair in zip(times[1:], shown, strict=True) for cell in pair),
    )


def operator_headings(names: Sequence[str]) -> tuple[str, ...]:
    """The headings of such a table, of models of these names."""
    return "slowest operators", "kind", names[0], *(cell for name in names[1:] for cell in (name, "speed"))


def short_name(name: str) -> str:
    """A tensor's name is that of all operators that were joined; the last of them comes first."""
    return name.partition(";")[0]


def aligned(rows: Sequence[Sequence[str]], *, left: int = 2) -> list[str]:
    """Rows as lines, in columns: the first `left` of them flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{width}}" if number < left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
