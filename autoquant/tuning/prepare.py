"""From what was opened to the first trial: an engine is chosen, the baseline scored, statistics are collected."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from autoquant.errors import DataError
from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.engines.engine import Engine
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.passes import CalibrationRunner, calibrate
from autoquant.evaluation.scoring.baseline import score_baseline
from autoquant.evaluation.scoring.streaming import stream_of
from autoquant.evaluation.scoring.subset import Part
from autoquant.evaluation.statistics.tolerance import Tolerance, worst_allowed
from autoquant.tuning.builder import Builder, Workbench
from autoquant.tuning.certification.make_holdout import make_holdout
from autoquant.tuning.engine_choice import Choice, Chooser
from autoquant.tuning.events import BaselineScored, Calibrated, Divided, Listener, Opened, Progress, Warned
from autoquant.tuning.inputs import Opening
from autoquant.tuning.objective import Objective, open_objective
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.equalization import Prepared, PreparedByPlan, equalized
from autoquant.tuning.sampling.samplers import Ingredients, open_proposer
from autoquant.tuning.sampling.search_problem import SearchProblem
from autoquant.tuning.sensitivity.predicting import Predictor
from autoquant.tuning.study.choices import AMCT, GUIDED
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.study import Study
from autoquant.tuning.study.workload import MACS
from autoquant.tuning.trials import Loop

Clock = Callable[[], float]


@dataclass(frozen=True)
class Assembled:
    """The trials to come, and the data with the holdout for the best of them."""

    loop: Loop
    splits: DataSplits


def assembled(opening: Opening, folder: RunFolder, listener: Listener, clock: Clock, begin: float) -> Assembled:
    """All that trials need, on the engine that was chosen for the run, or is now: `begin` is when the search began."""
    listener(_opened(opening, folder))
    chooser, stored = _chooser(opening, listener), folder.read_request().get("engine")
    choice = chooser.again(stored) if stored else chooser.first()
    _tell(choice, listener)
    ready = _ready(opening, folder, listener, choice.engine)
    if not stored:
        plans = (opening.space.plan(start.parameters) for start in opening.space.starts())
        confirmed = chooser.confirmed(choice, ready.bench.builder.make, plans)
        if confirmed.engine.name != choice.engine.name:
            _tell(confirmed, listener)
            ready = _ready(opening, folder, listener, confirmed.engine)
        folder.write_request({**folder.read_request(), "engine": confirmed.as_table()})
    request, bench = opening.request, ready.bench
    objective = open_objective(request, bench.builder, opening.space, bench.part.data, folder.operators)
    problem, predictor = _problem(opening, folder, listener, ready, objective)
    starts = [] if request.sampler in (GUIDED, AMCT) else list(opening.space.starts())
    given = Ingredients(problem, seed=request.seed, startup=len(starts), ranking=predictor.ranking)
    proposer = open_proposer(request.sampler, given)
    study = Study(folder.journal, opening.space, allowed=ready.allowed, proposer=proposer, starts=starts)
    loop = Loop(bench, opening.space, study, folder, request, ready.allowed, listener, clock, begin, objective)
    return Assembled(loop, ready.splits)


def _problem(
    opening: Opening, folder: RunFolder, listener: Listener, ready: Ready, objective: Objective
) -> tuple[SearchProblem, Predictor]:
    """The search as samplers see it, and what predicts losses for them."""
    request, part = opening.request, ready.bench.part
    predictor = Predictor(
        source=opening.source,
        space=opening.space,
        samples=opening.splits.calibration,
        batch_size=request.batch_size,
        of_classes=part.metric.of_classes,
        folder=folder.path,
        listener=listener,
    )
    return SearchProblem(opening.space, objective, ready.allowed, len(part), predictor.candidates), predictor


def _chooser(opening: Opening, listener: Listener) -> Chooser:
    request, space = opening.request, opening.space
    return Chooser(
        asked=request.engine,
        target=opening.target.name,
        model=opening.model,
        layers=[layer for name, layer in space.layers.items() if name not in space.always_float],
        data=opening.splits.evaluation,
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
    """A workbench, the largest drop within tolerance, in units of the metric, and the data with the holdout."""

    bench: Workbench
    allowed: float
    splits: DataSplits


def _ready(opening: Opening, folder: RunFolder, listener: Listener, engine: Engine) -> Ready:
    """Score the baseline and calibrate on an engine."""
    request, model = opening.request, opening.model
    baseline = score_baseline(
        engine,
        model,
        opening.splits.evaluation,
        opening.metric,
        batch_size=request.batch_size,
        cache=folder.baseline,
        on_progress=lambda done, total: listener(Progress("baseline", done, total)),
    )
    for text in baseline.warnings:
        listener(Warned(text))
    allowed = request.tolerance.absolute(baseline.score.value)
    limit = worst_allowed(baseline.score.value, allowed, higher_is_better=opening.metric.higher_is_better)
    if opening.metric.of_classes and limit <= 0.0:
        _refuse_or_warn(request.tolerance, baseline.score.value, listener)
    listener(BaselineScored(opening.metric.name, baseline.score.value, allowed, limit))
    splits = make_holdout(opening, folder, baseline, allowed)
    part = Part.of(splits.evaluation, splits.search.positions_in(splits.evaluation), opening.metric, baseline)
    listener(Divided(len(part), len(splits.holdout or ()), splits.reason))
    prepared = PreparedByPlan(partial(_prepared, opening, folder, listener, engine))
    corrector = _corrector(opening, folder, listener, engine)
    builder = Builder(model, opening.workload, opening.target, prepared, corrector)
    with closing(engine.open_graph(model.program)) as runner:
        stream = stream_of(runner, part, seed=request.seed, batch_size=request.batch_size)
    if not stream.decides:
        listener(Warned(f"every trial is scored on all samples: {_why_all(opening.metric)}"))
    return Ready(Workbench(builder, stream, engine, request.batch_size), allowed, splits)


def _prepared(opening: Opening, folder: RunFolder, listener: Listener, engine: Engine, equalize: bool) -> Prepared:
    """Calibrate the model that was opened, or the equalized one."""
    model, cache = opening.model, folder.statistics_equalized if equalize else folder.statistics
    if equalize:
        calibrating = _calibrating(opening, listener, engine, "equalization")
        batch_num = max(opening.space.batch_nums)
        model = equalized(opening.target, model, opening.workload.layers, calibrating, batch_num)
    statistics = calibrate(
        engine,
        model,
        opening.space.layers,
        opening.splits.calibration,
        opening.space.batch_nums,
        batch_size=opening.request.batch_size,
        tensors=opening.target.tensors(model, opening.workload.layers),
        balanced=opening.space.balanced,
        cache=cache,
        on_progress=lambda done, total: listener(Progress("calibration", done, total)),
    )
    listener(Calibrated(max(opening.space.batch_nums)))
    return Prepared(model, opening.target.maker(model, opening.workload.layers, statistics))


def _corrector(opening: Opening, folder: RunFolder, listener: Listener, engine: Engine) -> Corrector:
    calibrating = _calibrating(opening, listener, engine, "bias correction")
    return Corrector(opening.target, opening.workload.layers, calibrating, folder.corrections)


def _calibrating(opening: Opening, listener: Listener, engine: Engine, what: str) -> CalibrationRunner:
    return CalibrationRunner(
        engine,
        opening.splits.calibration,
        opening.request.batch_size,
        lambda done, total: listener(Progress(what, done, total)),
    )


def _why_all(metric: Metric) -> str:
    """Why some samples do not tell about all."""
    if not metric.per_sample:
        return f"the metric '{metric.name}' is no mean of values of samples"
    return f"the values of the metric '{metric.name}' have no bounds, without which a part proves nothing of the whole"


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
        samples=len(opening.splits.evaluation),
        calibration_samples=len(opening.splits.calibration),
        max_trials=opening.request.max_trials,
        timeout=opening.request.timeout,
        objective=opening.request.objective,
    )
