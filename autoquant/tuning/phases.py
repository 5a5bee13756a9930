"""phases.json: how long a run has spent on what, and on how many samples, over all processes that worked on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoquant.errors import RunError
from autoquant.formats.codec import load
from autoquant.tuning.events import Event, Progress, TrialEnded, TrialStarted

TRIALS = "trials"
OF_SAMPLES = frozenset({"baseline", "baseline of the holdout", "certification", "best model in TensorFlow"})
"""Phases whose steps are samples that a model was run on; so are those of trials."""
_OF_TRIALS = re.compile(r"(building )?trial \d+(, all samples)?")


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds by phase, and samples that a model was run on, where a phase counts these."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(value < 0 for value in (*self.seconds.values(), *self.samples.values())):
            raise ValueError("neither seconds nor samples are negative")

    def __add__(self, other: Phases) -> Phases:
        """Both, one after the other."""
        seconds, samples = dict(self.seconds), dict(self.samples)
        for name, spent in other.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + spent
        for name, count in other.samples.items():
            samples[name] = samples.get(name, 0) + count
        return Phases(seconds, samples)


class PhaseClock:
    """Hears the events of a search and counts the time between two of them for the phase that the first one began."""

    def __init__(self, now: float) -> None:
        self._seconds: dict[str, float] = {}
        self._samples: dict[str, int] = {}
        self._phase = "starting"
        self._since = now
        self._counted = 0

    def hear(self, event: Event, now: float) -> None:
        """Count the time since the last event."""
        self._count_time(now)
        if isinstance(event, Progress):
            self._enter(event.what)
            if self._phase in OF_SAMPLES:
                self._count(event.done)
        elif isinstance(event, TrialStarted):
            self._enter(TRIALS)
        elif isinstance(event, TrialEnded):
            self._samples[TRIALS] = self._samples.get(TRIALS, 0) + event.trial.samples

    def seconds_until(self, now: float) -> Mapping[str, float]:
        """The seconds of each phase up to now, of the one that goes on too; each trial is a phase of its own."""
        self._count_time(now)
        return self._seconds

    @property
    def phases(self) -> Phases:
        """What was counted so far, all trials as one."""
        seconds: dict[str, float] = {}
        for phase, spent in self._seconds.items():
            name = TRIALS if _OF_TRIALS.fullmatch(phase) else phase
            seconds[name] = seconds.get(name, 0.0) + spent
        return Phases(seconds, dict(self._samples))

    def _count_time(self, now: float) -> None:
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase, self._counted = phase, 0

    def _count(self, done: int) -> None:
        """Samples of a phase that has come so far."""
        self._samples[self._phase] = self._samples.get(self._phase, 0) + max(done - self._counted, 0)
        self._counted = done


def load_phases(path: Path) -> Phases:
    """The phases of a run, none where nobody counted."""
    return load(Phases, path, RunError, hint="remove it: a report does without") if path.is_file() else Phases()
