"""Writes report.html while a search goes on, and at its end: a listener between the search and its screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoquant.files import write_text
from autoquant.formats.codec import save
from autoquant.tuning.events import Event, Finished, Listener, Opened, TrialEnded, Warned
from autoquant.tuning.phases import PhaseClock, Phases, load_phases
from autoquant.tuning.study.run_folder import RunFolder

OFTEN, SELDOM = 10.0, 60.0
"""Seconds between two reports at least, and after how many one is due though nothing better was found."""
SHARE = 0.02
"""The share of the time of a search that its reports may take."""


class ReportWriter:
    """Hears every event before `listener`, and passes it on. No trouble with a report ends a search: it is a warning.

    A report is due with a new best trial, and else every SELDOM seconds, but not within OFTEN of the last one, nor
    sooner than its cost allows. The last one is written when the search is over. `clock` is that of the search.
    """

    def __init__(self, listener: Listener, clock: Callable[[], float]) -> None:
        self._listener = listener
        self._clock = clock
        self._phases = PhaseClock(clock())
        self._before = Phases()
        self._folder: RunFolder | None = None
        self._write: Callable[[bool], None] | None = None
        self._best: int | None = None
        self._wrote: float | None = None
        self._cost = 0.0
        self._failed = False

    def __call__(self, event: Event) -> None:
        """Count its time, write a report if one is due, and pass it on."""
        now = self._clock()
        self._phases.hear(event, now)
        if isinstance(event, Opened):
            self._open(event.run)
        if isinstance(event, Finished):
            self._report(going_on=False)
        self._listener(event)
        if isinstance(event, TrialEnded) and self._is_due(event, now):
            self._report(going_on=True)

    def _open(self, run: Path) -> None:
        self._folder = RunFolder(run)
        try:
            self._before = load_phases(self._folder.phases)
        except Exception as error:
            self._warn(error)

    def _is_due(self, event: TrialEnded, now: float) -> bool:
        best = event.best.number if event.best else None
        is_new, self._best = best != self._best, best
        if self._wrote is None:
            return True
        since = now - self._wrote
        return since >= max(OFTEN if is_new else SELDOM, self._cost / SHARE)

    def _report(self, *, going_on: bool) -> None:
        if self._folder is None:
            return
        begin = self._clock()
        try:
            save(self._before + self._phases.phases, self._folder.phases)
            self._page(going_on)
        except Exception as error:  # whatever it is: hours of search are worth more than a page
            self._warn(error)
        self._wrote = self._clock()
        self._cost = self._wrote - begin

    def _page(self, going_on: bool) -> None:
        if self._write is None:
            assert self._folder is not None
            self._write = page_writer(self._folder)
        self._write(going_on)

    def _warn(self, error: Exception) -> None:
        """Tell of the first failure; the next ones are likely to be the same."""
        if not self._failed:
            self._failed = True
            self._listener(Warned(f"report.html could not be written: {type(error).__name__}: {error}"))


def page_writer(folder: RunFolder) -> Callable[[bool], None]:
    """Writes the report of a run, again and again; is told whether a process works on it."""
    from autoquant.reports.page import render
    from autoquant.reports.run_files import RunReader
    from autoquant.reports.view import report_view

    reader = RunReader(folder)

    def write(going_on: bool) -> None:
        write_text(folder.report, render("report.html.j2", **report_view(reader.read(going_on=going_on))))

    return write
