"""Building the plan of a run again, for the other target or where its model was deleted, and scoring it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoquant.calibration.plan import adapt_plan
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.metric import require_labels, require_output
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import score_baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.formats.config_json import load_config
from autoquant.quiet import no_progress
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import builder_of_plan
from autoquant.tuning.events import Listener, Warned, progress, reporter
from autoquant.tuning.inputs import model_of, open_splits
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.workload import Workload


@dataclass(frozen=True, slots=True)
class Transferred:
    """The scores of the FP32 model and of a plan's file on a target, in units of the metric, on `engine`.

    `changes` say what of the plan the target does otherwise, `met` whether the tolerance of the run holds there too.
    """

    target: str
    engine: str
    metric: str
    baseline: float
    score: float
    drop: float
    met: bool
    samples: int
    changes: tuple[str, ...]


def transfer(
    request: SearchRequest,
    config: Path,
    folder: Path,
    *,
    batches: int,
    check: Callable[[str, str], None],
    listener: Listener = no_progress,
) -> Transferred:
    """Build the plan of a config.json for the request's target into a folder, and score what was saved.

    The two targets do not compute the same numbers, so this has a baseline and statistics of its own. The target's own
    runtime scores it. `batches` of calibration data were wanted at most by the run. `check` is called with 'data' and
    'calibration' and the digest of each, to refuse others than those of the run. Raises PlanError where
    nothing of the plan is left on this target, TrialError where a layer cannot be quantized there.
    """
    reporter(listener, "opening the model")
    opened = model_of(request)
    reporter(listener, "reading the data")
    samples = open_splits(
        request, opened, seed=request.seed, unit=request.unit, room=CacheRoom(folder), batches=batches
    )
    if not request.allow_overlap:
        samples = samples.disjoint()
    check("data", samples.evaluation.digest)
    check("calibration", samples.calibration.digest)
    metric = open_metric(request.metric)
    require_output(metric, opened.program.outputs)
    require_labels(metric, samples.evaluation)
    target = open_target(request.target, io=request.io, profile=request.profile, integer_only=request.integer_only)
    engine = open_engine(TARGETS[request.target].runtime)
    reporter(listener, f"lowering the model for {target.name}")
    model = target.lowered(opened)
    workload = Workload.of(target, model, samples.evaluation)
    fitted = adapt_plan(load_config(config), workload.layers)
    plan = replace(fitted.plan, exact=None)
    size = request.batch_size
    on_progress = reporter(listener, "baseline")
    baseline = score_baseline(
        engine, model, samples.evaluation, metric, batch_size=size, cache=None, on_progress=on_progress
    )
    builder = builder_of_plan(
        plan,
        model,
        workload,
        target,
        engine,
        samples.calibration,
        batch_size=size,
        on_progress=reporter(listener, "calibration"),
        on_between=partial(progress, listener, "operators between layers"),
        on_rounding=partial(progress, listener, "weight rounding"),
        on_training=partial(progress, listener, "training"),
        warn=lambda text: listener(Warned(text)),
    )
    reporter(listener, "building")
    subset = EvaluationSubset.of(samples.evaluation, metric, baseline)
    with closing(engine.open_file(builder.build(plan, folder).path, model.program)) as runner:
        score = subset.evaluate(runner, batch_size=size, on_progress=reporter(listener, "scoring"))
    loss = drop_from(baseline.score.value, score.value, higher_is_better=metric.higher_is_better)
    max_drop = request.tolerance.absolute(baseline.score.value)
    return Transferred(
        target=target.name,
        engine=engine.name,
        metric=metric.name,
        baseline=baseline.score.value,
        score=score.value,
        drop=loss,
        met=within(loss, max_drop),
        samples=score.samples,
        changes=fitted.changes,
    )
