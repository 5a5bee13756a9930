"""Carrying a trial out: its plan is built and scored. Who proposes and decides is another matter (trials.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from autoquant.calibration.plan import layer_at_fault
from autoquant.errors import AutoquantError, DataError, RunError
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.formats.codec import save
from autoquant.targets.base import OnStep
from autoquant.tuning.builder import Builder, Stopwatch
from autoquant.tuning.study.run_folder import CHANGES
from autoquant.tuning.study.trial import State, Trial

Begin = Callable[[str], OnProgress]
"""Tells that something begins; gives a callback that tells how far it is."""


class Scorer(Protocol):
    """Scores the file that was saved for a plan."""

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        """Load a file and score it until the rules stop it; calls `on_step` when load and score are done.

        Raises TrialError where it cannot be run.
        """
        ...


class Worker(Protocol):
    """Carries trials out, one after the other."""

    def start(self, begin: Begin) -> None:
        """Get ready for a trial, which must not count as its time."""
        ...

    def run(self, trial: Trial, rules: StoppingRules, folder: Path, begin: Begin) -> Trial:
        """The trial with its score, or failed, with the reason and the layer at fault, if any.

        Raises RunError, DataError for what is not the plan's fault: a folder that cannot be written, data that cannot
        be read any more.
        """
        ...

    def close(self) -> None:
        """There are no more trials."""
        ...


@dataclass(frozen=True)
class LocalWorker:
    """Carries trials out in this process."""

    builder: Builder
    scorer: Scorer
    clock: Callable[[], float]

    def start(self, begin: Begin) -> None:
        """It is ready."""

    def run(self, trial: Trial, rules: StoppingRules, folder: Path, begin: Begin) -> Trial:
        """As Worker has it."""
        start, watch = self.clock(), Stopwatch()
        try:
            building = begin(f"building trial {trial.number}")

            def step(name: str) -> None:
                watch.lap(name)
                building(0, 0)  # again: what was measured for it has told of itself

            built = self.builder.build(trial.plan, folder, step)
            found = self.scorer.score(built.path, rules, watch.lap, begin(f"trial {trial.number}"))
        except (RunError, DataError):
            raise
        except (AutoquantError, MemoryError) as error:
            failure = str(error) or "out of memory; a smaller --batch-size may help"
            at_fault = layer_at_fault(error, trial.plan) if isinstance(error, AutoquantError) else ""
            return failed(trial, failure, self.clock() - start, at_fault=at_fault)
        if found.changes is not None:
            save(found.changes, folder / CHANGES)
        sound = all(map(math.isfinite, found.divergences))
        return replace(
            trial,
            state=State.STOPPED if found.score is None else State.DONE,
            score=None if found.score is None else found.score.value,
            drop=found.drop,
            low=found.low,
            high=found.high,
            within=found.within,
            divergences=found.divergences if sound else (),
            divergence_samples=found.divergence_samples,
            probe_drops=found.probe_drops,
            samples=found.samples,
            seconds=watch.laps,
            qdq_ops=built.qdq_ops,
            digests=built.digests,
        )

    def close(self) -> None:
        """Nothing is left behind."""


def failed(trial: Trial, failure: str, seconds: float, *, at_fault: str = "") -> Trial:
    """A trial that failed after so many seconds."""
    return replace(trial, state=State.FAILED, failure=failure, at_fault=at_fault, seconds={"failed": seconds})
