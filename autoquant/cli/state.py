"""What a screen shows: everything that was told so far, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import Trial

RECENT = 6
"""Trials that are shown."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How far something is: `done` of `total` samples, heard at `at`; first heard of at `begin`, with `begun` done."""

    what: str
    done: int
    total: int
    at: float
    begun: int
    begin: float

    @property
    def rate(self) -> float | None:
        """Samples a second; None before there are two reports."""
        return (self.done - self.begun) / (self.at - self.begin) if self.at > self.begin else None

    def left(self, now: float) -> float | None:
        """Seconds left; None where the rate is not known."""
        return max((self.total - self.done) / self.rate - (now - self.at), 0.0) if self.rate else None


@dataclass(frozen=True, slots=True)
class State:
    """What was told so far. `used` seconds of the budget were used at time `at`."""

    opened: Opened | None = None
    baseline: BaselineScored | None = None
    divided: Divided | None = None
    running: TrialStarted | None = None
    pace: Pace | None = None
    recent: tuple[Trial, ...] = ()
    best: Trial | None = None
    trials: int = 0
    used: float = 0.0
    at: float | None = None
    warnings: tuple[str, ...] = ()
    result: SearchResult | None = None

    def used_at(self, now: float) -> float:
        """Seconds of the budget that are used now."""
        return self.used if self.result or self.at is None else self.used + now - self.at


def update(state: State, event: Event, now: float) -> State:
    """The state after an event that was heard at time `now`, in seconds of any clock."""
    match event:
        case Opened():
            return replace(state, opened=event)
        case BaselineScored():
            return replace(state, baseline=event, pace=None)
        case Divided():
            return replace(state, divided=event)
        case Calibrated():
            return replace(state, pace=None)
        case Resumed():
            return replace(
                state,
                recent=event.trials[-RECENT:],
                best=event.best,
                trials=len(event.trials),
                used=event.seconds,
                at=now,
            )
        case Progress():
            return replace(state, pace=_pace(state.pace, event, now))
        case TrialStarted():
            return replace(state, running=event, pace=None, at=now if state.at is None else state.at)
        case TrialEnded():
            return replace(
                state,
                running=None,
                pace=None,
                recent=(*state.recent, event.trial)[-RECENT:],
                best=event.best,
                trials=event.trials,
                used=event.seconds,
                at=now,
            )
        case Warned():
            return replace(state, warnings=(*state.warnings, event.text))
        case Finished():
            result = event.result
            return replace(
                state,
                running=None,
                pace=None,
                best=result.best,
                trials=len(result.trials),
                used=result.seconds,
                result=result,
            )


def _pace(before: Pace | None, event: Progress, now: float) -> Pace:
    if before is None or before.what != event.what or event.done < before.done:
        return Pace(event.what, event.done, event.total, now, event.done, now)
    return replace(before, done=event.done, total=event.total, at=now)
