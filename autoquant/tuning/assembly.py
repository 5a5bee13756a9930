"""From what was opened to the first trial: an engine is chosen, the baseline scored, statistics are collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoquant.errors import DataError
from autoquant.evaluation.engine import Engine
from autoquant.model.model import Model
from autoquant.targets.base import Maker
from autoquant.tuning.calibrating import Calibrating
from autoquant.tuning.engines import Choice, Chooser
from autoquant.tuning.equalizing import MakerByPlan, equalized
from autoquant.tuning.events import BaselineScored, Calibrated, Listener, Opened, Progress, Warned
from autoquant.tuning.loop import Loop
from autoquant.tuning.objective import open_objective
from autoquant.tuning.opening import Opening
from autoquant.tuning.prepare import calibrate, score_baseline
from autoquant.tuning.run_folder import RunFolder
from autoquant.tuning.study import Study
from autoquant.tuning.tolerance import Tolerance, worst_allowed
from autoquant.tuning.workbench import Builder, Workbench
from autoquant.tuning.workload import MACS

Clock = Callable[[], float]


def assembled(opening: Opening, folder: RunFolder, listener: Listener, clock: Clock, begin: float) -> Loop:
    """All that trials need, on the engine that was chosen for the run, or is now: `begin` is when the search began."""
    listener(_opened(opening, folder))
    chooser, stored = _chooser(opening, listener), folder.read_request().get("engine")
    choice = chooser.again(stored) if stored else chooser.first()
    _tell(choice, listener)
    ready = _ready(opening, folder, listener, choice.engine)
    if not stored:
        plans = (opening.space.plan(start.parameters) for start in opening.space.starts())
        confirmed = chooser.confirmed(choice, ready.bench.builder.maker, plans)
        if confirmed.engine.name != choice.engine.name:
            _tell(confirmed, listener)
            ready = _ready(opening, folder, listener, confirmed.engine)
        folder.write_request({**folder.read_request(), "engine": confirmed.as_table()})
    request, bench = opening.request, ready.bench
    study = Study(folder.journal, opening.space, seed=request.seed, allowed=ready.allowed)
    objective = open_objective(request, bench.builder, opening.space, bench.evaluation, folder.operators)
    return Loop(bench, opening.space, study, folder, request, ready.allowed, listener, clock, begin, objective)


def _chooser(opening: Opening, listener: Listener) -> Chooser:
    request, space = opening.request, opening.space
    return Chooser(
        asked=request.engine,
        target=opening.target.name,
        model=opening.model,
        layers=[layer for name, layer in space.layers.items() if name not in space.always_float],
        data=opening.samples.evaluation,
        of_classes=opening.metric.of_classes,
        batch_size=request.batch_size,
        on_progress=lambda done, total: listener(Progress("LiteRT beside TensorFlow", done, total)),
        in_float=[space.layers[name] for name in space.always_float],
    )


def _tell(choice: Choice, listener: Listener) -> None:
    if choice.reason:
        listener(Warned(f"scored in TensorFlow, not on LiteRT, which is faster: {choice.reason}"))


@dataclass(frozen=True)
class Ready:
    """A workbench, and the largest drop within tolerance, in units of the metric."""

    bench: Workbench
    allowed: float


def _ready(opening: Opening, folder: RunFolder, listener: Listener, engine: Engine) -> Ready:
    """Score the baseline and calibrate on an engine."""
    request, model, samples = opening.request, opening.model, opening.samples
    baseline = score_baseline(
        engine,
        model,
        samples.evaluation,
        opening.metric,
        batch_size=request.batch_size,
        kept=folder.baseline,
        on_progress=lambda done, total: listener(Progress("baseline", done, total)),
    )
    for text in baseline.warnings:
        listener(Warned(text))
    allowed = request.tolerance.absolute(baseline.score.value)
    limit = worst_allowed(baseline.score.value, allowed, higher_is_better=opening.metric.higher_is_better)
    if opening.metric.of_classes and limit <= 0.0:
        _refuse_or_warn(request.tolerance, baseline.score.value, listener)
    listener(BaselineScored(opening.metric.name, baseline.score.value, allowed, limit))
    plain = _maker(opening, model, folder.statistics, listener, engine)
    listener(Calibrated(max(opening.space.batch_nums)))
    maker = MakerByPlan(plain, lambda: _equalizing_maker(opening, folder, listener, engine))
    builder = Builder(model, opening.workload, opening.target, maker)
    return Ready(Workbench(builder, samples.evaluation, opening.metric, baseline, engine, request.batch_size), allowed)


def _maker(opening: Opening, model: Model, kept: Path, listener: Listener, engine: Engine) -> Maker:
    """Calibrate a model: the one that was opened, or the equalized one."""
    statistics = calibrate(
        engine,
        model,
        opening.space.layers,
        opening.samples.calibration,
        opening.space.batch_nums,
        batch_size=opening.request.batch_size,
        tensors=opening.target.tensors(model, opening.workload.layers),
        balanced=opening.space.balanced,
        kept=kept,
        on_progress=lambda done, total: listener(Progress("calibration", done, total)),
    )
    return opening.target.maker(model, opening.workload.layers, statistics)


def _equalizing_maker(opening: Opening, folder: RunFolder, listener: Listener, engine: Engine) -> Maker:
    calibrating = Calibrating(
        engine,
        opening.samples.calibration,
        opening.request.batch_size,
        lambda done, total: listener(Progress("equalization", done, total)),
    )
    batch_num = max(opening.space.batch_nums)
    model = equalized(opening.target, opening.model, opening.workload.layers, calibrating, batch_num)
    return _maker(opening, model, folder.statistics_equalized, listener, engine)


def _refuse_or_warn(tolerance: Tolerance, baseline: float, listener: Listener) -> None:
    """A tolerance that leaves a share of right answers nothing to fall short of was hardly meant."""
    if baseline == 0.0:
        hint = "are data, labels and preprocessing those of the model?"
        raise DataError("baseline", "the FP32 model's score is 0: there is nothing to keep", hint=hint)
    meant = f"; did you mean {tolerance.value:g}%?" if not tolerance.relative else ""
    listener(Warned(f"a tolerance of {tolerance} allows any score down to 0{meant}"))


def _opened(opening: Opening, folder: RunFolder) -> Opened:
    return Opened(
        run=folder.path,
        model=opening.model.name,
        layers=opening.workload.size,
        macs=sum(opening.workload.costs.values()) if opening.workload.unit == MACS else None,
        samples=len(opening.samples.evaluation),
        calibration_samples=len(opening.samples.calibration),
        max_trials=opening.request.max_trials,
        timeout=opening.request.timeout,
        objective=opening.request.objective,
    )
