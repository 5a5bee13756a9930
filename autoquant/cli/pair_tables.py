"""Tables of what settings and float layers bought: measured differences between two trials each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoquant.cli.output import UNLIMITED, plain_table, wrapped
from autoquant.cli.setting_words import changed_words
from autoquant.cli.words import number, percent

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from autoquant.reports.ablations import Bought, Pair, Retreat
    from autoquant.tuning.study.trial import Trial

MOST = 8
"""Rows of a table: more do not help to see what mattered, and --json has all."""
MOST_NAMES = 3
"""Layers that are named beside each other."""
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row."""

    what: str
    other: str
    loss: str
    drop: str
    gained: str
    trials: str

    @classmethod
    def of(cls, what: str, other: str, pair: Pair) -> Row:
        """A row about two trials."""
        losses, gain = pair.divergence, pair.gain
        bounded = gain is not None and math.isfinite(gain.low) and math.isfinite(gain.high) and not _exact(pair)
        return cls(
            what,
            other,
            f"{losses.before:.3g} -> {losses.after:.3g}" if losses else UNKNOWN,
            f"{drop_words(pair.before)} -> {drop_words(pair.after)}" if gain else UNKNOWN,
            UNKNOWN if gain is None else number(gain.estimate) + (_between(gain.low, gain.high) if bounded else ""),
            f"{pair.before.number}, {pair.after.number}",
        )

    def lines(self, heading: str) -> tuple[str, str]:
        """The same in two lines; `heading` is that of the second cell."""
        cells = (("loss", self.loss), ("drop", self.drop), ("gained", self.gained))
        told = ", ".join(f"{name} {cell}" for name, cell in cells if cell != UNKNOWN)
        return f"{self.what} ({heading} {self.other}), trials {self.trials}", f"  {told}"


def settings_table(settings: Sequence[Bought], columns: int | None) -> list[RenderableType]:
    """What settings of the plan bought, a row each; those changed together in one."""
    rows = []
    for one in settings:
        words = [changed_words(change) for change in one.changes]
        after, before = (" and ".join(side) for side in zip(*words, strict=True))
        rows.append(Row.of(after, before, one.pair))
    return _table(("what settings bought", "instead of"), rows, columns)


def retreats_table(retreats: Sequence[Retreat], objective: str, columns: int | None) -> list[RenderableType]:
    """What layers in float bought, and what they cost: in INT8 share, or in what else was minimized."""
    from autoquant.tuning.study.choices import MACS

    rows = []
    for one in retreats:
        before, after = one.pair.before, one.pair.after
        left = len(one.layers) - MOST_NAMES
        names = ", ".join(one.layers[:MOST_NAMES]) + (f" and {left} more" if left > 0 else "")
        costs = [trial.int8_share if objective == MACS else trial.objective for trial in (before, after)]
        rows.append(Row.of(names, " -> ".join(map(percent, costs)), one.pair))
    cost = "share in INT8" if objective == MACS else objective
    return _table(("what float layers bought", cost), rows, columns)


def legend(pairs: Sequence[Pair]) -> Iterator[str]:
    """What the columns mean, where there are any."""
    over = sorted({pair.divergence.samples for pair in pairs if pair.divergence})
    if over:
        samples = f"{over[0]:,}" if len(over) == 1 else f"{over[0]:,} to {over[-1]:,}"
        yield f"loss: mean divergence of outputs from FP32's, over {samples} samples, the same for both trials"
    if any(pair.gain is not None and not _exact(pair) for pair in pairs):
        yield "~: estimated, as the trial was stopped early; an interval in brackets holds at the run's error rate"


def drop_words(trial: Trial) -> str:
    """A drop, with '~' in front where it is an estimate.

    The sign is the drop's: an INT8 model that is better than FP32 has a negative one.
    """
    if trial.drop is None:
        return UNKNOWN
    return number(trial.drop) if trial.score is not None else f"~{number(trial.drop)}"


def interval_words(trial: Trial) -> str:
    """The interval of an estimated drop; nothing where the drop is exact, or came without."""
    if trial.score is not None or trial.low is None or trial.high is None:
        return ""
    return _between(trial.low, trial.high)


def _exact(pair: Pair) -> bool:
    return pair.before.score is not None and pair.after.score is not None


def _between(low: float, high: float) -> str:
    return f" ({low:.2g} to {high:.2g})"


def _table(words: tuple[str, str], rows: Sequence[Row], columns: int | None) -> list[RenderableType]:
    """A table of the first rows, without what was gained where it does not fit; else two lines for every row."""
    from rich.text import Text

    if not rows:
        return []
    left = [f"... and {len(rows) - MOST} more, which --json lists"] if len(rows) > MOST else []
    for numbers in (("loss", "drop", "gained", "trials"), ("loss", "drop", "trials")):
        table = plain_table(*words, numbers=numbers)
        for row in rows[:MOST]:
            table.add_row(row.what, row.other, *(getattr(row, name) for name in numbers))
        if columns is None or _width(table) <= columns:
            return [table, *left]
    lines = [wrapped(line, columns) for row in rows[:MOST] for line in row.lines(words[1])]
    return [Text(words[0], "bold"), *lines, *left]


def _width(table: Table) -> int:
    from rich.console import Console

    return Console(width=UNLIMITED).measure(table).maximum
