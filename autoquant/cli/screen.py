"""The screen of a running search: redrawn in place in a terminal, and elsewhere a log with a line for what is new."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoquant.cli.output import note
from autoquant.cli.state import Pace, SearchState, best, budget, cells, ended, facts, running, update, verdict
from autoquant.cli.words import duration
from autoquant.tuning.events import Event, Listener, TrialEnded, Warned
from autoquant.tuning.study.trial import Trial

PATIENCE = 10.0
"""Seconds between two lines of progress in a log."""
BAR = 28
"""Columns of the progress bar where there is room for it."""
STYLES = MappingProxyType({"met": "green", "missed": "red", "failed": "red"})
"""Verdict of a trial -> its style; others are dim."""


@contextmanager
def listening(args: argparse.Namespace) -> Iterator[Listener]:
    """Inside, the listener that the arguments choose."""
    console = Console(stderr=True, highlight=False)
    in_place = sys.stderr.isatty() and not console.is_dumb_terminal and os.environ.get("TERM")
    if args.quiet:
        yield note_warnings
    elif args.plain or args.verbose or not in_place:  # TensorFlow's own lines would tear the live view apart
        yield PlainScreen(note, time.monotonic, verbose=args.verbose)
    else:
        with live_screen(console, time.monotonic) as listener:
            yield listener


def note_warnings(event: Event) -> None:
    """A listener that writes warnings alone."""
    if isinstance(event, Warned):
        note(f"warning: {event.text}")


class PlainScreen:
    """A listener that calls `write` with a line for each fact and each trial, and for progress every ten seconds.

    `verbose` adds when a trial begins, what it spent its time on, and which layers it left in float.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float], *, verbose: bool) -> None:
        self._write = write
        self._clock = clock
        self._verbose = verbose
        self._begin = self._wrote = clock()
        self._state = SearchState()

    def __call__(self, event: Event) -> None:
        """Write what an event changed."""
        now = self._clock()
        before, self._state = self._state, update(self._state, event, now)
        known = self._lines(before)
        lines = [line for line in self._lines(self._state) if line not in known]
        if isinstance(event, TrialEnded):
            lines += trial_lines(event.trial, self._state, verbose=self._verbose)
        pace = self._state.pace
        if not lines and pace is not None and now - self._wrote >= PATIENCE:
            lines = [f"{pace.what}: {pace.words(now)}"]
        for line in lines:
            self._wrote = now
            self._write(f"[{duration(now - self._begin):>6}] {line}")

    def _lines(self, state: SearchState) -> list[str]:
        begun = running(state) if self._verbose else ()
        warnings = (("warning", text) for text in state.warnings)
        return [f"{label}: {text}" for label, text in (*facts(state), *warnings, *begun, *ended(state))]


def trial_lines(trial: Trial, state: SearchState, *, verbose: bool) -> Iterator[str]:
    """The lines of a trial that has ended; the state has it."""
    reason = f", {trial.failure}" if trial.failure else ""
    figures = ", ".join(f"{heading} {cell}" for heading, cell in cells(trial, state).items() if cell)
    is_best = state.best is not None and state.best.number == trial.number
    best = "; best so far" if is_best else f"; best is trial {state.best.number}" if state.best else ""
    yield f"trial {trial.number}: {verdict(trial, state)}{reason}; {figures}; {trial.why}{best}"
    if verbose:
        parts = ", ".join(f"{part} {spent:.2f} s" for part, spent in trial.seconds.items())
        layers = trial.plan.layers
        in_float = ", ".join(name for name, settings in layers.items() if settings is None)
        yield f"trial {trial.number}: {parts or 'no times'}; in float: {in_float or 'none'}"


@contextmanager
def live_screen(console: Console, clock: Callable[[], float]) -> Iterator[Listener]:
    """Inside, a listener that shows the state of the search in place; each event is seen at the next refresh.

    The last state stays on the screen, unless there never was one.
    """
    state = SearchState()

    def hear(event: Event) -> None:
        nonlocal state
        state = update(state, event, clock())

    with Live(console=console, get_renderable=lambda: render(state, clock()), refresh_per_second=4) as live:
        try:
            yield hear
        finally:
            live.transient = state.opened is None


def render(state: SearchState, now: float) -> RenderableType:
    """What the screen shows at time `now`, at whatever width."""
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold", ratio=1)
    shown: list[tuple[str, RenderableType]] = []
    if state.opened is None:
        shown.append(("autoquant", "reading model and data ..."))
    shown += facts(state)
    if state.baseline is not None:
        shown.append(("best", Text(best(state), STYLES.get(verdict(state.best, state), "") if state.best else "dim")))
    shown += running(state)
    if state.pace is not None:
        shown.append(("" if state.running else state.pace.what, _bar(state.pace, now)))
    for row in (*shown, *ended(state), *budget(state, now)):
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


def _trials(state: SearchState) -> Table:
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
