"""What the trials of one run share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.engines.engine import Engine
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.metric import Metric, OnProgress
from autoquant.evaluation.scoring.sample_scorer import SampleScorer, SequentialScore, StoppingRules
from autoquant.targets.base import OnStep
from autoquant.targets.table import TARGETS
from autoquant.tuning import events
from autoquant.tuning.builder import Builder
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.space import Parameters, SearchSpace
from autoquant.tuning.study.study import Space, Study
from autoquant.tuning.study.trial import Terms
from autoquant.tuning.study.workload import Objective

Clock = Callable[[], float]
"""Seconds since some moment."""


class Scorer(Protocol):
    """Scores the file that was saved for a plan."""

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        """Load a file and score it until the rules stop it; calls `on_step` when load and score are done.

        Raises TrialError where it cannot be run.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search ends though it could go on, and what its early decisions may risk.

    It ends after `max_trials` trials, `timeout` seconds, or, with `stop_on_target`, the first trial within tolerance;
    also after `max_failures` in a row that no layer explains, as another plan will not cure what is wrong. Any trial of
    the run is decided wrongly with probability `error_rate` at most.
    """

    max_trials: float = math.inf
    timeout: float = math.inf
    stop_on_target: bool = False
    max_failures: float = 10
    error_rate: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that the trials of one run share.

    `terms.max_drop` is the largest drop within tolerance, in units of the metric. `begin` is when, by the clock, this
    process began, whose preparation counts, and `seconds_before` what earlier processes of the run spent on trials.
    Trials leave `reserve` seconds of the budget to certification.
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
    clock: Clock
    begin: float
    seconds_before: float = 0.0
    reserve: float = 0.0
    keep_all_models: bool = False

    @property
    def max_drop(self) -> float:
        """The largest drop within tolerance, in units of the metric."""
        return self.terms.max_drop

    @property
    def best_model(self) -> Path:
        """Where the model of the best trial is."""
        return self.folder.best / self.builder.file_name

    def seconds_used(self) -> float:
        """The seconds of the budget that are used."""
        return self.seconds_before + self.clock() - self.begin

    def on_progress(self, what: str) -> OnProgress:
        """A callback that tells the listener how far something is."""
        return lambda done, total: self.listener(events.Progress(what, done, total))


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
    def runtime(self) -> str:
        """The engine that the INT8 model is made for."""
        return TARGETS[self.request.target].runtime

    def open_runtime(self) -> Engine:
        """Open that engine."""
        return open_engine(self.runtime)
