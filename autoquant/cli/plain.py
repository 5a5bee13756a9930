"""One line per event, for a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autoquant.cli.state import State, update
from autoquant.cli.words import SET_ASIDE, conversions, counted, duration, macs, number, percent
from autoquant.tuning.events import (
    BaselineScored,
    Calibrated,
    Divided,
    Event,
    Finished,
    Opened,
    Progress,
    Resumed,
    TrialEnded,
    TrialStarted,
    Warned,
)
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.trial import State as TrialState
from autoquant.tuning.study.trial import Trial

PATIENCE = 10.0
"""Seconds between two lines of progress."""


class PlainScreen:
    """A listener that gives every event a line, and progress one in ten seconds.

    `write` is called with a line; `verbose` adds what a trial spent its time on and which layers it left in float.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float], *, verbose: bool) -> None:
        self._write = write
        self._clock = clock
        self._verbose = verbose
        self._begin = self._heard = clock()
        self._state = State()

    def __call__(self, event: Event) -> None:
        """Write what is to be said of an event."""
        now = self._clock()
        self._state = update(self._state, event, now)
        if isinstance(event, Progress) and now - self._heard < PATIENCE:
            return
        for text in lines(event, self._state, now, verbose=self._verbose):
            self._heard = now
            self._write(f"[{duration(now - self._begin):>6}] {text}")


def lines(event: Event, state: State, now: float, *, verbose: bool = False) -> Iterator[str]:
    """What is to be said of an event; `state` is the one after it."""
    match event:
        case Opened():
            layers = counted(event.layers, "layer")
            yield f"model {event.model}: {layers}, {macs(event.macs)} multiply-adds; run {event.run}"
            samples = counted(event.samples, "sample")
            yield f"data: {samples} for evaluation, {event.calibration_samples:,} for calibration"
        case BaselineScored():
            allowed = f"INT8 may have {number(event.limit)} (drop {number(event.allowed)})"
            yield f"FP32 {event.metric} {number(event.score)}; {allowed}"
        case Divided():
            aside = f"{event.certification:,} kept aside to certify the best"
            why = f"none kept aside to certify the best: {event.reason}"
            yield f"{counted(event.search, 'sample')} to search on, {aside if event.certification else why}"
        case Calibrated():
            yield f"calibrated with {counted(event.batches, 'batch')}"
        case Resumed():
            yield f"goes on after {counted(len(event.trials), 'trial')}" + (
                f"; best is trial {event.best.number}" if event.best else ""
            )
        case Progress():
            left = state.pace.left(now) if state.pace else None
            yield f"{event.what}: {event.done:,}/{event.total:,}" + (
                f", {duration(left)} left" if left is not None else ""
            )
        case TrialStarted():
            if verbose:
                yield f"trial {event.number} begins: {event.why}, {event.int8_layers} layers in INT8"
        case TrialEnded():
            yield from _ended(event, state, verbose=verbose)
        case Warned():
            yield f"warning: {event.text}"
        case Finished():
            yield f"ended: {event.result.ended}"


def _ended(event: TrialEnded, state: State, *, verbose: bool) -> Iterator[str]:
    trial, best = event.trial, event.best
    yield f"trial {trial.number}: {_outcome(trial, state)}; {_plan(trial, state)}; {trial.why}" + (
        f"; best is trial {best.number}" if best and best.number != trial.number else "; best so far" if best else ""
    )
    if verbose:
        parts = ", ".join(f"{part} {spent:.2f} s" for part, spent in trial.seconds.items())
        kept = ", ".join(name for name, settings in trial.plan.layers.items() if settings is None)
        yield f"trial {trial.number}: {parts or 'no times'}; in float: {kept or 'none'}"


def _outcome(trial: Trial, state: State) -> str:
    if trial.state is TrialState.FAILED or state.baseline is None:
        return f"failed, {trial.failure}"
    if trial.state is TrialState.STOPPED:
        about = "" if trial.drop is None else f", drop about {number(trial.drop)}"
        found = SET_ASIDE if trial.undecided else _MET[trial.within]
        return f"stopped after {counted(trial.samples, 'sample')}{about}, {found}"
    met = _MET[trial.meets(state.baseline.allowed)]
    return f"{state.baseline.metric} {number(trial.score or 0.0)}, drop {number(trial.drop or 0.0)}, {met}"


_MET = {True: "within tolerance", False: "not within tolerance", None: "compared by its outputs"}


def _plan(trial: Trial, state: State) -> str:
    objective = state.opened.objective if state.opened else MACS
    minimized = "" if objective == MACS else f", {objective} {percent(trial.objective)}"
    between = "" if trial.qdq_ops is None else f", {conversions(trial.qdq_ops)}"
    return f"{trial.int8_layers}/{trial.layers} layers in INT8, {percent(trial.int8_share)}{minimized}{between}"
