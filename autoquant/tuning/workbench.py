"""One plan through the whole cycle: quantize, calibrate, save, load back, score."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Calibrator
from autoquant.evaluation.baseline import Baseline
from autoquant.evaluation.data import Dataset
from autoquant.evaluation.engine import Engine
from autoquant.evaluation.evaluator import Progress, Score, evaluate, no_progress
from autoquant.evaluation.metrics import Metric
from autoquant.formats.config_json import save_config
from autoquant.formats.record_text import save_record
from autoquant.model.model import Model
from autoquant.targets.base import Target
from autoquant.tuning.workload import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan carried out: its score on everything, and the seconds of each part, in order."""

    score: Score
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Builder:
    """What it takes to build INT8 models of one model."""

    model: Model
    workload: Workload
    calibrator: Calibrator
    target: Target

    def build(self, plan: Plan, folder: Path, on_part: Callable[[str], None] = lambda part: None) -> Path:
        """Write config.json, record.txt and the model, whose path is returned.

        Calls `on_part` when quantize, calibrate and save are done. Raises PlanError or TrialError.
        """
        save_config(plan, folder / "config.json", layers=self.workload.layers)
        on_part("quantize")
        record = self.calibrator.record(plan)
        save_record(record, folder / "record.txt")
        on_part("calibrate")
        path = folder / self.target.file_name(self.model.name)
        self.target.save(self.model.graph, self.workload.layers, record, path)
        on_part("save")
        return path


@dataclass(frozen=True)
class Workbench:
    """Everything that the trials of a run share."""

    builder: Builder
    evaluation: Dataset
    metric: Metric
    baseline: Baseline
    engine: Engine
    batch_size: int

    def carry_out(self, plan: Plan, folder: Path, on_progress: Progress = no_progress) -> Outcome:
        """Build a plan and score the file that was saved, loaded back.

        Raises TrialError where the plan does not work out.
        """
        watch = Stopwatch()
        path = self.builder.build(plan, folder, watch.lap)
        runner = self.engine.open_file(path, self.builder.model.graph)
        watch.lap("load")
        try:
            score = evaluate(
                runner,
                self.evaluation,
                self.metric,
                batch_size=self.batch_size,
                reference=self.baseline.outputs if self.metric.needs_reference else None,
                on_progress=on_progress,
            )
        finally:
            runner.close()
        watch.lap("score")
        return Outcome(score, watch.laps)


class Stopwatch:
    """Seconds by part."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.laps: dict[str, float] = {}
        self._clock = clock
        self._last = clock()

    def lap(self, name: str) -> None:
        """What has passed since the last call belongs to `name`."""
        now = self._clock()
        self.laps[name] = now - self._last
        self._last = now
