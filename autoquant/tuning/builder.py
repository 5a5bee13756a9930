"""One plan through the whole cycle: quantize, calibrate, save, load back, score."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.engine import Engine, Runner
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.passes import CalibrationRunner, calibrate
from autoquant.evaluation.scoring.evaluator import Progress, Score, no_progress
from autoquant.evaluation.scoring.streaming import Rules, Stream, Streamed, scored_at, streamed
from autoquant.evaluation.scoring.subset import Part
from autoquant.formats.config_json import save_config
from autoquant.formats.record_text import save_record
from autoquant.model.model import Model
from autoquant.targets.base import NO_CORRECTIONS, Made, Target
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.equalization import Prepared, equalized
from autoquant.tuning.study.workload import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan carried out: what came of scoring it, and the seconds of each part, in order.

    `boundaries` counts the operators between float and INT8 where the target puts them between layers.
    """

    streamed: Streamed
    seconds: Mapping[str, float]
    boundaries: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """The file of a plan, and its boundaries, as in `Outcome`."""

    path: Path
    boundaries: int | None


@dataclass(frozen=True)
class Builder:
    """What it takes to build INT8 models of one model, in the form that the target adopted.

    `prepared` gives what a plan quantizes. Without a `corrector` no plan may ask for `bias_correction`.
    """

    model: Model
    workload: Workload
    target: Target
    prepared: Callable[[Plan], Prepared]
    corrector: Corrector | None = None

    def build(self, plan: Plan, folder: Path, on_part: Callable[[str], None] = lambda part: None) -> Built:
        """Write config.json, the model, and record.txt.

        Calls `on_part` when quantize, perhaps correct, calibrate and save are done. Raises PlanError or TrialError.
        """
        save_config(plan, folder / "config.json", layers=self.workload.layers)
        on_part("quantize")
        path = folder / self.target.file_name(self.model.name)
        made = self.make(plan, path, on_part)
        save_record(made.record, folder / "record.txt")
        return Built(path, made.boundaries)

    def make(self, plan: Plan, path: Path, on_part: Callable[[str], None] = lambda part: None) -> Made:
        """Write the model alone, its biases corrected where the plan wants that. Raises as `build`."""
        model, maker = self.prepared(plan)
        corrections = NO_CORRECTIONS
        if plan.bias_correction != "none":
            assert self.corrector is not None, plan.bias_correction
            corrections = self.corrector.corrections(plan, model, maker)
            on_part("correct")
        return maker.make(plan, path, on_part, corrections=corrections)


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
    calibrating = CalibrationRunner(engine, data, batch_size, on_progress)
    if plan.equalize:
        model = equalized(target, model, workload.layers, calibrating, plan.batch_num)
    statistics = calibrate(
        engine,
        model,
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
    prepared = Prepared(model, target.maker(model, workload.layers, statistics))
    return Builder(model, workload, target, lambda plan: prepared, Corrector(target, layers, calibrating))


@dataclass(frozen=True)
class Workbench:
    """Everything that the trials of a run share."""

    builder: Builder
    stream: Stream
    engine: Engine
    batch_size: int

    @property
    def part(self) -> Part:
        """What trials are scored on."""
        return self.stream.part

    @property
    def metric(self) -> Metric:
        """What scores them."""
        return self.part.metric

    def carry_out(self, plan: Plan, folder: Path, rules: Rules, on_progress: Progress = no_progress) -> Outcome:
        """Build a plan and score the file that was saved, loaded back, until the rules stop it.

        Raises TrialError where the plan does not work out.
        """
        watch = Stopwatch()
        built = self.builder.build(plan, folder, watch.lap)
        with closing(self.engine.open_file(built.path, self.builder.model.program)) as runner:
            watch.lap("load")
            found = streamed(runner, self.stream, rules, batch_size=self.batch_size, on_progress=on_progress)
        watch.lap("score")
        return Outcome(found, watch.laps, built.boundaries)


def score_whole(runner: Runner, part: Part, *, batch_size: int, on_progress: Progress = no_progress) -> Score:
    """Score an opened model on all of a part, and close it. Raises as `evaluate`."""
    with closing(runner):
        return scored_at(runner, part, np.arange(len(part)), batch_size=batch_size, on_progress=on_progress)


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
