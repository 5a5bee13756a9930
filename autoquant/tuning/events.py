"""The events of a search. It knows no screen; a listener turns events into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import Trial

OPENING = "opening the model"
"""The first phase of a search, whose beginning is that of its time."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Model and data are open; the search begins, or goes on.

    `macs` is None where they are not known for every layer; `objective` is the name of what is minimized; `cached` are
    bytes of samples of functions.
    """

    run: Path
    model: str
    layers: int
    macs: int | None
    samples: int
    calibration_samples: int
    max_trials: int
    timeout: float
    objective: str = "macs"
    cached: int = 0


@dataclass(frozen=True, slots=True)
class BaselineScored:
    """The FP32 model has its score on all evaluation samples; `max_drop` is the largest drop within tolerance."""

    metric: str
    score: float
    max_drop: float


@dataclass(frozen=True, slots=True)
class DataSplit:
    """How many samples the search and the holdout have; `reason` says why there is no holdout."""

    search: int
    holdout: int
    reason: str


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Calibration is done: there are statistics of every layer's input."""

    batches: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run goes on: these trials ended before, the best of them is `best`, and they took `seconds` of the budget."""

    trials: tuple[Trial, ...]
    best: Trial | None
    seconds: float


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A trial begins."""

    number: int
    why: str
    int8_layers: int
    int8_share: float
    int16_layers: int = 0


@dataclass(frozen=True, slots=True)
class WorkerHere:
    """A worker: its number, where it runs, what it does, and how many trials it has carried out."""

    number: int
    host: str
    pid: int
    doing: str
    trials: int
    trial: int | None = None


@dataclass(frozen=True, slots=True)
class WorkersSeen:
    """These workers are there, or what they do has changed."""

    workers: tuple[WorkerHere, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Samples, or other steps, done of the baseline, the calibration, the current trial, or another phase.

    0 done is the beginning of the phase; `total` is 0 where its steps cannot be counted.
    """

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial has ended; `best` is the best so far, of this and all before. `seconds` of the budget are used."""

    trial: Trial
    best: Trial | None
    trials: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """A trial that this worker carried out has ended, one of so many."""

    trial: Trial
    trials: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The search is over."""

    result: SearchResult


Event = (
    Opened
    | BaselineScored
    | DataSplit
    | Calibrated
    | Resumed
    | TrialStarted
    | WorkersSeen
    | Progress
    | TrialEnded
    | WorkerEnded
    | Warned
    | Finished
)
Listener = Callable[[Event], None]


def progress(listener: Listener, what: str, done: int, total: int) -> None:
    """Tell a listener how far a phase is."""
    listener(Progress(what, done, total))


def reporter(listener: Listener, what: str) -> OnProgress:
    """Tell a listener that a phase begins; gives a callback that tells how far it is."""
    progress(listener, what, 0, 0)
    return partial(progress, listener, what)
