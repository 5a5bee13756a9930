"""From a plan to the INT8 file on disk: quantize, correct biases, calibrate, save."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.engine import Engine
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.formats.config_json import save_config
from autoquant.formats.record_text import save_record
from autoquant.model.model import Model
from autoquant.quiet import no_progress
from autoquant.targets.base import NO_CORRECTIONS, Int8File, Target
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.equalization import ModelVariant, equalized
from autoquant.tuning.study.workload import Workload


@dataclass(frozen=True, slots=True)
class Built:
    """The file of a plan; `qdq_ops` counts its operators between float and INT8, where the target has any."""

    path: Path
    qdq_ops: int | None


@dataclass(frozen=True)
class Builder:
    """Builds INT8 files of one model, which is in the form that the target lowers it to.

    `prepared` gives what a plan quantizes. Without a `corrector` no plan may ask for `bias_correction`.
    """

    model: Model
    workload: Workload
    target: Target
    prepared: Callable[[Plan], ModelVariant]
    corrector: Corrector | None = None

    @property
    def file_name(self) -> str:
        """Name of the model's file in the folder of any plan."""
        return self.target.file_name(self.model.name)

    def build(self, plan: Plan, folder: Path, on_step: Callable[[str], None] = no_progress) -> Built:
        """Write config.json, the model, and record.txt.

        Calls `on_step` when quantize, perhaps correct, calibrate and save are done. Raises PlanError or TrialError.
        """
        save_config(plan, folder / "config.json", layers=self.workload.layers)
        on_step("quantize")
        path = folder / self.file_name
        made = self.make(plan, path, on_step)
        save_record(made.record, folder / "record.txt")
        return Built(path, made.qdq_ops)

    def make(self, plan: Plan, path: Path, on_step: Callable[[str], None] = no_progress) -> Int8File:
        """Write the model alone, its biases corrected where the plan wants that. Raises as `build`."""
        model, compiler = self.prepared(plan)
        corrections = NO_CORRECTIONS
        if plan.bias_correction != "none":
            assert self.corrector is not None, plan.bias_correction
            corrections = self.corrector.corrections(plan, model, compiler)
            on_step("correct")
        return compiler.compile(plan, path, on_step, corrections=corrections)


def builder_of_plan(
    plan: Plan,
    model: Model,
    workload: Workload,
    target: Target,
    engine: Engine,
    data: Dataset,
    *,
    batch_size: int,
    on_progress: OnProgress = no_progress,
) -> Builder:
    """A builder for one plan: its INT8 layers alone are calibrated, on `data`.

    Raises as `CalibrationRunner.statistics`, and as `equalized` where the plan wants that.
    """
    layers = {name: workload.layers[name] for name in plan.int8}
    calibration = CalibrationRunner(engine, data, batch_size, on_progress)
    if plan.equalize:
        model = equalized(model, workload.layers, calibration, plan.batch_num)
    statistics = calibration.statistics(
        model,
        layers,
        [plan.batch_num],
        tensors=target.tensors(model, layers),
        balanced=[name for name, settings in plan.int8.items() if settings.dmq is not None],
        exact=plan.exact or False,
        sketched=plan.sketched,
    )
    prepared = ModelVariant(model, target.compiler(model, workload.layers, statistics))
    return Builder(model, workload, target, lambda plan: prepared, Corrector(target, layers, calibration))


class Stopwatch:
    """Seconds by part of a trial."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.laps: dict[str, float] = {}
        self._clock = clock
        self._last = clock()

    def lap(self, name: str) -> None:
        """Count the time since the last call for `name`."""
        now = self._clock()
        self.laps[name] = now - self._last
        self._last = now
