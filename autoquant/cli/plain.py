"""The screen of a running search as a log: a line for whatever is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autoquant.cli.state import State, cells, ended, facts, running, update, verdict
from autoquant.cli.words import duration
from autoquant.tuning.events import Event, TrialEnded
from autoquant.tuning.study.trial import Trial

PATIENCE = 10.0
"""Seconds between two lines of progress."""


class PlainScreen:
    """A listener that calls `write` with a line for each fact and each trial, and for progress every ten seconds.

    `verbose` adds when a trial begins, what it spent its time on, and which layers it left in float.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float], *, verbose: bool) -> None:
        self._write = write
        self._clock = clock
        self._verbose = verbose
        self._begin = self._wrote = clock()
        self._state = State()

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

    def _lines(self, state: State) -> list[str]:
        begun = running(state) if self._verbose else ()
        warnings = (("warning", text) for text in state.warnings)
        return [f"{label}: {text}" for label, text in (*facts(state), *warnings, *begun, *ended(state))]


def trial_lines(trial: Trial, state: State, *, verbose: bool) -> Iterator[str]:
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
