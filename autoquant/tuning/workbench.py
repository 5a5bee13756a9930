"""One plan through the whole cycle: quantize, calibrate, save, load back, score."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.evaluation.baseline import Baseline
from autoquant.evaluation.data import Dataset
from autoquant.evaluation.engine import Engine, Runner
from autoquant.evaluation.evaluator import Progress, Score, evaluate, no_progress
from autoquant.evaluation.metrics import Metric
from autoquant.formats.config_json import save_config
from autoquant.formats.record_text import save_record
from autoquant.model.model import Model
from autoquant.targets.base import Maker, Target
from autoquant.tuning.calibrating import Calibrating
from autoquant.tuning.equalizing import equalized
from autoquant.tuning.prepare import calibrate
from autoquant.tuning.workload import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan carried out: its score on everything, and the seconds of each part, in order.

    `boundaries` counts the operators between float and INT8 where the target puts them between layers.
    """

    score: Score
    seconds: Mapping[str, float]
    boundaries: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """The file of a plan, and its boundaries, as in `Outcome`."""

    path: Path
    boundaries: int | None


@dataclass(frozen=True)
class Builder:
    """What it takes to build INT8 models of one model, in the form that the target adopted."""

    model: Model
    workload: Workload
    target: Target
    maker: Maker

    def build(self, plan: Plan, folder: Path, on_part: Callable[[str], None] = lambda part: None) -> Built:
        """Write config.json, the model, and record.txt.

        Calls `on_part` when quantize, calibrate and save are done. Raises PlanError or TrialError.
        """
        save_config(plan, folder / "config.json", layers=self.workload.layers)
        on_part("quantize")
        path = folder / self.target.file_name(self.model.name)
        made = self.maker.make(plan, path, on_part)
        save_record(made.record, folder / "record.txt")
        return Built(path, made.boundaries)


def calibrated_for(
    plan: Plan,
    model: Model,
    workload: Workload,
    target: Target,
    engine: Engine,
    data: Dataset,
    *,
    batch_size: int,
    on_progress: Progress = no_progress,
) -> Builder:
    """What builds one plan of a model that the target adopted; `data` is seen by its INT8 layers alone.

    Raises as `calibrate`, and as `equalized` where the plan wants that.
    """
    layers = {name: workload.layers[name] for name in plan.int8}
    calibrating = Calibrating(engine, data, batch_size, on_progress)
    prepared = equalized(target, model, workload.layers, calibrating, plan.batch_num) if plan.equalize else model
    statistics = calibrate(
        engine,
        prepared,
        layers,
        data,
        [plan.batch_num],
        batch_size=batch_size,
        tensors=target.tensors(model, layers),
        balanced=[name for name, settings in plan.int8.items() if settings.dmq is not None],
        exact=plan.exact or False,
        sketched=plan.sketched,
        on_progress=on_progress,
    )
    return Builder(model, workload, target, target.maker(prepared, workload.layers, statistics))


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
        built = self.builder.build(plan, folder, watch.lap)
        runner = self.engine.open_file(built.path, self.builder.model.program)
        watch.lap("load")
        score = self.score(runner, on_progress)
        watch.lap("score")
        return Outcome(score, watch.laps, built.boundaries)

    def score(self, runner: Runner, on_progress: Progress = no_progress) -> Score:
        """Score an opened model on all evaluation data, and close it. Raises as `evaluate`."""
        try:
            return evaluate(
                runner,
                self.evaluation,
                self.metric,
                batch_size=self.batch_size,
                reference=self.baseline.outputs if self.metric.needs_reference else None,
                on_progress=on_progress,
            )
        finally:
            runner.close()


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
