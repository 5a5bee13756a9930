"""What the trials of one run share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoquant.errors import BudgetError, OutOfTime, StopSearch, TrialTimeout
from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.engines.engine import Engine
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.metric import Metric, OnProgress
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.targets.table import TARGETS
from autoquant.tuning import events
from autoquant.tuning.alarm import alarm
from autoquant.tuning.builder import Builder
from autoquant.tuning.phases import PhaseClock
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.space import Parameters, SearchSpace
from autoquant.tuning.study.study import Space, Study
from autoquant.tuning.study.trial import Terms
from autoquant.tuning.study.workload import Objective
from autoquant.tuning.worker import LocalWorker, Scorer, Worker

Clock = Callable[[], float]
"""Seconds since some moment."""
SILENCE = 60.0
"""Seconds after which a trial that has reported nothing is taken to hang, once the time is over."""


@dataclass
class TimeLimit:
    """The time of a run. `begin` is when, by the clock, this process began, whose preparation counts.

    `before` are the seconds that earlier processes of the run spent on trials, known once its study is open.
    """

    clock: Clock
    begin: float
    timeout: float = math.inf
    before: float = 0.0
    _enforced: bool = False
    _trial_end: float = math.inf
    _heard: float = -math.inf

    def used(self) -> float:
        """Seconds that are used."""
        return self.before + self.clock() - self.begin

    def left(self) -> float:
        """Seconds that are left, 0 where none are."""
        return max(self.timeout - self.used(), 0.0)

    @contextmanager
    def enforced(self, enforced: bool = True) -> Iterator[None]:
        """Inside, whatever reports its progress ends with OutOfTime when the time is over."""
        before, self._enforced = self._enforced, enforced
        try:
            yield
        finally:
            self._enforced = before

    @contextmanager
    def of_trial(self, seconds: float) -> Iterator[None]:
        """Inside, a trial ends with TrialTimeout after so many seconds, and with OutOfTime as `enforced` says.

        So it does where it says nothing, as one does that waits for ever; what is not enforced then ends as well.
        """
        self._heard = self.clock()
        self._trial_end = self._heard + seconds
        try:
            with alarm(min(seconds, max(self.left(), 0.0)), self.check_silent):
                yield
        finally:
            self._trial_end = math.inf

    def check(self, *, optional: bool = False) -> None:
        """Raise OutOfTime where the time is over, and what reports can be left out, or must be; or a trial's time."""
        if (optional or self._enforced) and self.left() == 0.0:
            raise OutOfTime
        if self.clock() >= self._trial_end:
            raise TrialTimeout

    def check_silent(self) -> None:
        """The same for a trial that reports nothing: for SILENCE seconds the first one may, whatever the time."""
        self.check(optional=self.clock() - self._heard >= SILENCE)

    def bounded(self, on_progress: OnProgress, *, optional: bool = False) -> OnProgress:
        """A callback that also checks the time."""

        def report(done: int, total: int) -> None:
            on_progress(done, total)
            self._heard = self.clock()
            self.check(optional=optional)

        return report


class PhaseTimes:
    """A listener before another one: takes the time of phases, and ends what reports where the time is over.

    `stopped` says that the other one ended the search.
    """

    def __init__(self, listener: events.Listener, limit: TimeLimit) -> None:
        self._clock = PhaseClock(limit.begin)
        self._listener = listener
        self._limit = limit
        self.stopped = False

    def __call__(self, event: events.Event) -> None:
        """Hand on an event. Raises OutOfTime where the limit is enforced and over, StopSearch once."""
        self._clock.hear(event, self._limit.clock())
        try:
            self._listener(event)
        except StopSearch:
            if not self.stopped and not isinstance(event, events.Finished):
                self.stopped = True  # what ends the search in good order reports its progress too
                raise
        if isinstance(event, events.Progress):
            self._limit.check()

    def no_trial(self, run: str, hint: str) -> BudgetError:
        """The error to raise where the time was over before there was a trial, with what took most of it."""
        seconds = self._clock.seconds_until(self._limit.clock())
        longest = max(seconds, key=lambda phase: seconds[phase])
        took = f"'{longest}' took {seconds[longest]:.1f} of {self._limit.used():.1f} s"
        what = f"--timeout {self._limit.timeout:g} s was over before the first trial ended: {took}"
        return BudgetError(run, what, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search or a trial ends though it could go on, and what early decisions may risk.

    It ends after `max_trials` trials, `timeout` seconds, or, with `stop_on_target`, the first trial within tolerance;
    also after `max_failures` in a row that no layer explains, as another plan will not cure what is wrong. Any trial of
    the run is decided wrongly with probability `error_rate` at most. A trial fails that takes longer than
    `trial_timeout` seconds.
    """

    max_trials: float = math.inf
    timeout: float = math.inf
    trial_timeout: float = math.inf
    stop_on_target: bool = False
    max_failures: float = 10
    error_rate: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that the trials of one run share.

    `terms.max_drop` is the largest drop within tolerance, in units of the metric. Trials are carried out by this
    process, or by what is `isolated` from it. They leave `reserve` seconds of the
    budget to the bounds of a certificate. So many models as `keep_models` says stay on disk (study/pareto.py), or all.
    """

    builder: Builder
    scorer: Scorer
    space: Space
    study: Study
    objective: Objective
    terms: Terms
    budget: Budget
    folder: RunFolder
    listener: events.Listener
    limit: TimeLimit
    reserve: float = 0.0
    keep_all_models: bool = False
    keep_models: int = 1
    isolated: Worker | None = None

    @property
    def worker(self) -> Worker:
        """What carries trials out."""
        return self.isolated or LocalWorker(self.builder, self.scorer, self.limit.clock)

    @property
    def max_drop(self) -> float:
        """The largest drop within tolerance, in units of the metric."""
        return self.terms.max_drop

    @property
    def best_model(self) -> Path:
        """Where the model of the best trial is."""
        return self.folder.best / self.builder.file_name

    @property
    def seconds_reserved(self) -> float:
        """About how long certification takes."""
        return self.reserve

    def on_progress(self, what: str) -> OnProgress:
        """Tell the listener that something begins; gives a callback that tells how far it is, and ends it in time."""
        return self.limit.bounded(events.reporter(self.listener, what))

    def has_no_time(self, what: str) -> bool:
        """Whether the time is over; `what` was not done for that, which is told."""
        if self.limit.left() > 0.0:
            return False
        self.listener(events.Warned(f"{what}: --timeout leaves no time"))
        return True


@dataclass(frozen=True, kw_only=True)
class SearchSession(Session):
    """A session whose trials are scored on evaluation data.

    `known_divergences` gives the divergence of each layer alone in INT8 that was predicted for these parameters in the
    course of the search, None where nothing was.
    """

    scorer: SampleScorer
    space: SearchSpace
    request: SearchRequest
    splits: DataSplits
    known_divergences: Callable[[Parameters], Mapping[str, float] | None]

    @property
    def metric(self) -> Metric:
        """What scores the outputs."""
        return self.scorer.metric

    @property
    def seconds_reserved(self) -> float:
        """The time of the bounds, and that of scoring the holdout by what the slowest trial took for a sample."""
        return self.reserve + self.study.slowest * len(self.splits.holdout or ())

    @property
    def runtime(self) -> str:
        """The engine that the INT8 model is made for."""
        return TARGETS[self.request.target].runtime

    def open_runtime(self) -> Engine:
        """Open that engine."""
        return open_engine(self.runtime)
