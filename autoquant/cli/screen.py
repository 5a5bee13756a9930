"""The screen of a running search: redrawn in place in a terminal, and elsewhere a log with a line for what is new."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, TextIO, cast

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoquant.cli.output import Printable, note
from autoquant.cli.state import (
    Pace,
    SearchState,
    best,
    budget,
    cells,
    crew,
    ended,
    facts,
    phase,
    phase_begin,
    running,
    update,
    verdict,
    workers,
)
from autoquant.pulse import PATIENCE, PERIOD, Pulse, log_line, watched
from autoquant.quiet import show
from autoquant.tuning.events import Event, Listener, TrialEnded, Warned, WorkerEnded
from autoquant.tuning.study.trial import Trial

NARROW = 90
"""Columns below which the table of trials does without the scores, which drops tell as well, and the shares."""
BAR = 28
"""Columns of the progress bar where there is room for it."""
STYLES = MappingProxyType({"met": "green", "missed": "red", "failed": "red"})
"""Verdict of a trial -> its style; others are dim."""


@contextmanager
def listening(args: argparse.Namespace) -> Iterator[Listener]:
    """Inside, the listener that the arguments choose."""
    if getattr(args, "quiet", False):
        yield note_warnings
        return
    console = Console(file=cast("IO[str]", _Stderr(sys.stderr)), highlight=False, markup=False, emoji=False)
    in_place = sys.stderr.isatty() and not console.is_dumb_terminal and os.environ.get("TERM")
    if getattr(args, "plain", False) or args.verbose or not in_place:  # TensorFlow's lines would tear a live view apart
        screen = PlainScreen(note, time.monotonic, verbose=args.verbose)
        with watched() as say_alive, _repeated(lambda: say_alive(screen.beat()), PERIOD):
            yield screen
    else:
        with live_screen(console, time.monotonic) as listener:
            yield listener


class _Stderr:
    """Standard error for a console, also while what others write there is held back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    def write(self, text: str) -> int:
        show(text, self._stream)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def _repeated(call: Callable[[], None], period: float) -> Iterator[None]:
    """Inside, a function is called every so many seconds, in a thread of its own."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(period):
            call()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def note_warnings(event: Event) -> None:
    """A listener that writes warnings alone."""
    if isinstance(event, Warned):
        note(f"warning: {event.text}")


class PlainScreen:
    """A listener that calls `write` with a line for each fact and each trial, and for progress every ten seconds.

    `beat` is to be called now and then, from any thread, for what takes long without an event. `verbose` adds when a
    trial begins, what it spent its time on, and which layers it left in float.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float], *, verbose: bool) -> None:
        self._write = write
        self._clock = clock
        self._verbose = verbose
        self._begin = self._wrote = clock()
        self._state = SearchState(heard=self._begin)
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write what an event changed."""
        with self._lock:
            now = self._clock()
            before, self._state = self._state, update(self._state, event, now)
            known = self._lines(before)
            lines = [line for line in self._lines(self._state) if line not in known]
            if isinstance(event, TrialEnded | WorkerEnded):
                lines += trial_lines(event.trial, self._state, verbose=self._verbose)
            self._put(lines or self._progress(now), now)

    def beat(self) -> Pulse:
        """Write what is going on, if it is long since the last line; gives what can be said when this is not called."""
        with self._lock:
            now = self._clock()
            self._put(self._progress(now), now)
            what, begin = phase_begin(self._state)
            return Pulse(now - self._begin, now - begin, now - self._wrote, what)

    def _progress(self, now: float) -> list[str]:
        due = now - self._wrote >= PATIENCE and self._state.result is None
        return [": ".join(phase(self._state, now))] if due else []

    def _put(self, lines: Iterable[str], now: float) -> None:
        for line in lines:
            self._wrote = now
            self._write(log_line(now - self._begin, line))

    def _lines(self, state: SearchState) -> list[str]:
        begun = running(state) if self._verbose else ()
        warnings = (("warning", text) for text in state.warnings)
        return [f"{label}: {text}" for label, text in (*facts(state), *warnings, *crew(state), *begun, *ended(state))]


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
    state = SearchState(heard=clock())

    def hear(event: Event) -> None:
        nonlocal state
        state = update(state, event, clock())

    shown = begun_again(console, lambda: Printable(render(state, clock())))
    with Live(console=console, get_renderable=shown, refresh_per_second=4) as live:
        try:
            yield hear
        finally:
            live.transient = state.opened is None


def begun_again(console: Console, draw: Callable[[], RenderableType]) -> Callable[[], RenderableType]:
    """Draws the same, on an empty screen whenever its width has changed.

    The terminal has folded the old lines anew then, and nobody knows how many there are to draw over.
    """
    width = console.width

    def drawn() -> RenderableType:
        nonlocal width
        if console.width != width:
            width = console.width
            console.control(Control.clear(), Control.home())
        return draw()

    return drawn


def render(state: SearchState, now: float) -> RenderableType:
    """What the screen shows at time `now`, at whatever width."""
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold", ratio=1)
    shown: list[tuple[str, RenderableType]] = []
    if state.opened is None and state.pace is None:
        shown.append(("autoquant", "reading model and data ..."))
    shown += facts(state)
    if state.baseline is not None:
        shown.append(("best", Text(best(state), STYLES.get(verdict(state.best, state), "") if state.best else "dim")))
    shown += running(state)
    shown += workers(state)
    if state.pace is not None:
        own = state.running is not None and state.pace.what == f"trial {state.running.number}"
        shown.append(("" if own else state.pace.what, _bar(state.pace, now)))
    for row in (*shown, *ended(state), *budget(state, now)):
        rows.add_row(*row)
    parts: list[RenderableType] = [rows]
    if state.recent:
        parts += ["", _Trials(state)]
    if state.warnings:
        parts += ["", *(Text(f"warning: {text}", style="yellow") for text in state.warnings)]
    return Group(*parts, "")


def _bar(pace: Pace, now: float) -> RenderableType:
    if not pace.counts(now):
        return pace.words(now)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(max_width=BAR)
    grid.add_column(no_wrap=True)
    grid.add_row(ProgressBar(total=pace.total, completed=pace.done, width=None), pace.words(now))
    return grid


@dataclass(frozen=True)
class _Trials:
    """The table of the last trials. What is tried is folded, never cut; a narrow screen does without the scores."""

    state: SearchState

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state = self.state
        rows = [cells(trial, state) for trial in state.recent]
        left_out = {"score", "share"} if options.max_width < NARROW else set()
        headings = [heading for heading in rows[0] if any(row[heading] for row in rows) and heading not in left_out]
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim", expand=True)
        table.add_column("trial", justify="right", no_wrap=True, min_width=len("trial"))
        table.add_column("what is tried", overflow="fold", ratio=1)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for trial, row in zip(state.recent, rows, strict=True):
            why = Text(trial.why).append(f"\n{trial.failure}" if trial.failure else "", style="red")
            word = verdict(trial, state)
            figures = (row[heading] for heading in headings)
            table.add_row(str(trial.number), why, *figures, Text(word, STYLES.get(word, "dim")))
        yield table
