"""From a plan to the INT8 file on disk: quantize, correct, calibrate, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.array import Array
from autoquant.calibration.plan import Plan
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.engine import Engine
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.files import digests_of, write_bytes
from autoquant.formats.config_json import save_config
from autoquant.formats.record_text import save_record
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Front, InputSpec, Model, is_lite
from autoquant.quiet import no_progress
from autoquant.targets.base import NO_CORRECTIONS, Int8File, Target
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.corrections import Repairs
from autoquant.tuning.repairs.equalization import ModelVariant, equalized
from autoquant.tuning.repairs.training.trainer import Trainer
from autoquant.tuning.repairs.weight_rounding import Rounder
from autoquant.tuning.sensitivity.likelihoods import OutputReading
from autoquant.tuning.sensitivity.request import Between
from autoquant.tuning.study.workload import Workload

if TYPE_CHECKING:  # which loads LiteRT
    from autoquant.tuning.sensitivity.between import TensorsBetween


@dataclass(frozen=True, slots=True)
class Built:
    """The file of a plan; `qdq_ops` counts its operators between float and INT8, where the target has any.

    `digests` are the SHA-256 of all that was written, by name.
    """

    path: Path
    qdq_ops: int | None
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Builder:
    """Builds INT8 files of one model, which is in the form that the target lowers it to.

    `prepared` gives what a plan quantizes. Without `repairs` no plan may ask for `weight_rounding` by gptq,
    `bias_correction` or `training`. `between` is asked which operators between layers stay in float where a plan does
    not say; without it none.
    """

    model: Model
    workload: Workload
    target: Target
    prepared: Callable[[Plan], ModelVariant]
    repairs: Repairs | None = None
    between: Callable[[Plan], TensorsBetween] | None = None

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files that are written for a model at `path`, itself first."""
        return (*self.target.files(path), *([] if self.model.front is None else [front_path(path)]))

    @property
    def file_name(self) -> str:
        """Name of the model's file in the folder of any plan."""
        return self.target.file_name(self.model.name)

    def completed(self, plan: Plan) -> Plan:
        """The plan with all chosen that it leaves open; finding out can take a pass over calibration data."""
        if plan.float_operators is not None or self.between is None or not isinstance(self.model.program, LiteGraph):
            return plan
        if not all(layer.can.in_float for layer in self.workload.layers.values()):
            return replace(plan, float_operators=frozenset())
        return replace(plan, float_operators=self.between(plan).float_operators)

    def measure_between(self, plan: Plan) -> Between | None:
        """What INT8 costs between layers, tensor by tensor; None where there is none but in layers."""
        return self.between(plan).costs if self.between and isinstance(self.model.program, LiteGraph) else None

    def build(self, plan: Plan, folder: Path, on_step: Callable[[str], None] = no_progress) -> Built:
        """Write config.json, the model, and record.txt.

        Calls `on_step` when quantize, perhaps round, correct and train, calibrate and save are done. Raises PlanError,
        TrialError, and ModelError where the model cannot be trained as the plan wants.
        """
        plan = self.completed(plan)
        config, record = folder / "config.json", folder / "record.txt"
        save_config(plan, config, layers=self.workload.layers)
        on_step("quantize")
        path = folder / self.file_name
        made = self.make(plan, path, on_step)
        save_record(made.record, record)
        return Built(path, made.qdq_ops, digests_of([config, record, *self.files(path)]))

    def round_weights(self, plan: Plan) -> Mapping[str, Array]:
        """The integers of weights of a completed plan that are not rounded to nearest. Raises as `Rounder.weights`."""
        assert self.repairs is not None, plan
        return self.repairs.rounder.weights(plan, *self.prepared(plan))

    def make(self, plan: Plan, path: Path, on_step: Callable[[str], None] = no_progress) -> Int8File:
        """Write the model, corrected as the plan wants, and its front. Raises as `build`."""
        plan = self.completed(plan)
        model, compiler = self.prepared(plan)
        corrections = NO_CORRECTIONS
        if plan.corrected:
            assert self.repairs is not None, plan
            corrections = self.repairs.corrections(plan, model, compiler, on_step)
        made = compiler.compile(plan, path, on_step, corrections=corrections)
        if self.model.front is not None:
            graph_def = self.model.front.graph.to_graph_def()
            write_bytes(front_path(path), graph_def.SerializeToString(deterministic=True))
        return made


def front_path(path: Path) -> Path:
    """The graph of TensorFlow beside a .tflite, `x_int8.tflite`, that computes inputs of it, `x_front.pb`.

    >>> front_path(Path("a/mail_int8.tflite")).as_posix()
    'a/mail_front.pb'
    """
    return path.with_name(f"{path.stem.removesuffix('_int8')}_front.pb")


def existing_front(model: Path) -> Path | None:
    """The front beside a .tflite, where there is one."""
    return front_path(model) if is_lite(model) and front_path(model).is_file() else None


def saved_front(model: Path, inputs: Sequence[InputSpec]) -> Front | None:
    """What is in front of a .tflite with these inputs, by the graph beside it, where there is one.

    Raises ModelError where that graph is not whole.
    """
    path = existing_front(model)
    if path is None:
        return None
    from autoquant.model.interface import find_inputs
    from autoquant.model.shapes import input_specs
    from autoquant.targets.saved_graph import read_saved_graph

    graph = read_saved_graph(path).graph
    made = tuple(spec.name for spec in inputs if spec.name in graph.nodes)
    graph = replace(graph, inputs=find_inputs(graph), outputs=made)
    others = tuple(spec for spec in inputs if spec.name not in made)
    return Front(graph, (*input_specs(graph), *others))


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
    on_between: OnProgress = no_progress,
    on_rounding: OnProgress = no_progress,
    on_training: OnProgress = no_progress,
    warn: Callable[[str], None] = no_progress,
) -> Builder:
    """A builder for one plan: its INT8 layers alone are calibrated, on `data`.

    `on_progress` is told of passes over the data, `on_between` of what is measured between layers, `on_rounding` of how
    weights are rounded, `on_training` of steps of training, and `warn` of what is left out.
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
    # Nobody says what the outputs are: of values each column is to be kept, whatever the others hold.
    between = tensors_between(lambda plan: prepared, plan, data, OutputReading(of_classes=None), on_progress=on_between)
    rounder = Rounder(target, layers, replace(calibration, on_progress=on_rounding), warn=warn)
    trainer = Trainer(target, layers, replace(calibration, on_progress=on_training))
    repairs = Repairs(rounder, Corrector(target, layers, calibration), trainer)
    return Builder(model, workload, target, lambda plan: prepared, repairs, between)


def tensors_between(
    prepared: Callable[[Plan], ModelVariant],
    fullest: Plan,
    data: Dataset,
    reading: OutputReading,
    *,
    folder: Path | None = None,
    on_progress: OnProgress = no_progress,
    warn: Callable[[str], None] = no_progress,
) -> Callable[[Plan], TensorsBetween]:
    """What tensors between layers cost, measured for the model as it is, or equalized, when a plan first asks.

    `fullest` has in INT8 what any plan has.
    """

    @cache
    def measured(equalize: bool) -> TensorsBetween:
        from autoquant.targets.litert import LiteRTCompiler
        from autoquant.tuning.sensitivity.between import TensorsBetween

        plan = replace(fullest, equalize=equalize, float_operators=frozenset())
        model, compiler = prepared(plan)
        assert isinstance(compiler, LiteRTCompiler)
        return TensorsBetween(
            model=model,
            compiler=compiler,
            plan=plan,
            data=data,
            reading=reading,
            folder=folder,
            on_progress=on_progress,
            warn=warn,
        )

    return lambda plan: measured(plan.equalize)


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
