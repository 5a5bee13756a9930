"""The screen of a running search in a terminal, redrawn in place."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType, TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoquant.cli.state import Pace, State, best, budget, cells, ended, facts, running, update, verdict
from autoquant.tuning.events import Event

BAR = 28
"""Columns of the progress bar where there is room for it."""
STYLES = MappingProxyType({"met": "green", "missed": "red", "failed": "red"})
"""Verdict of a trial -> its style; others are dim."""


class LiveScreen:
    """A listener that shows the state of the search in place."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._state = State()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the last state, which stays on the screen, unless there never was one."""
        self._live.transient = self._state.opened is None
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take an event, which is seen at the next refresh."""
        self._state = update(self._state, event, self._clock())

    def _render(self) -> RenderableType:
        return render(self._state, self._clock())


def render(state: State, now: float) -> RenderableType:
    """What the screen shows at time `now`, at whatever width."""
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold", ratio=1)
    if state.opened is None:
        rows.add_row("autoquant", "reading model and data ...")
    for row in facts(state):
        rows.add_row(*row)
    if state.baseline is not None:
        rows.add_row("best", Text(best(state), STYLES.get(verdict(state.best, state), "") if state.best else "dim"))
    for row in running(state):
        rows.add_row(*row)
    if state.pace is not None:
        rows.add_row("" if state.running else state.pace.what, _bar(state.pace, now))
    for row in (*ended(state), *budget(state, now)):
        rows.add_row(*row)
    parts: list[RenderableType] = [rows]
    if state.recent:
        parts += ["", _trials(state)]
    if state.warnings:
        parts += ["", *(Text(f"warning: {text}", style="yellow") for text in state.warnings)]
    return Group(*parts, "")


def _bar(pace: Pace, now: float) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(max_width=BAR)
    grid.add_column(no_wrap=True)
    grid.add_row(ProgressBar(total=pace.total, completed=pace.done, width=None), pace.words(now))
    return grid


def _trials(state: State) -> Table:
    rows = [cells(trial, state) for trial in state.recent]
    headings = [heading for heading in rows[0] if any(row[heading] for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim", expand=True)
    table.add_column("trial", justify="right", no_wrap=True, min_width=len("trial"))
    table.add_column("what is tried", overflow="ellipsis", no_wrap=True, ratio=1)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for trial, row in zip(state.recent, rows, strict=True):
        why = Text(trial.why).append(f"\n{trial.failure}" if trial.failure else "", style="red")
        word = verdict(trial, state)
        table.add_row(
            str(trial.number), why, *(row[heading] for heading in headings), Text(word, STYLES.get(word, "dim"))
        )
    return table
