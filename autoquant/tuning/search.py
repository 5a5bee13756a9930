"""The search from beginning to end: open, baseline, calibrate, trials until the target or the budget, result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autoquant import __version__
from autoquant.calibration.record import Calibrator
from autoquant.errors import AutoquantError, RunError
from autoquant.evaluation.metrics import Metric, open_metric, require_labels
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.files import unwritable, write_text
from autoquant.formats.space_toml import SpaceFile, load_space
from autoquant.model.model import Model, open_model
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.events import BaselineScored, Calibrated, Listener, Opened, Progress, Warned
from autoquant.tuning.loop import Loop
from autoquant.tuning.prepare import Samples, batches_in, calibrate, digest_of, open_samples, score_baseline
from autoquant.tuning.request import SearchRequest
from autoquant.tuning.result import SearchResult
from autoquant.tuning.run_folder import RunFolder
from autoquant.tuning.space import SearchSpace
from autoquant.tuning.study import Study
from autoquant.tuning.tolerance import worst_allowed
from autoquant.tuning.workbench import Builder, Workbench
from autoquant.tuning.workload import MACS, Workload

Clock = Callable[[], float]


@dataclass(frozen=True)
class Opening:
    """What a request names, opened and checked, before anything is computed."""

    request: SearchRequest
    model: Model
    samples: Samples
    workload: Workload
    space: SearchSpace
    space_file: SpaceFile
    metric: Metric

    def digests(self) -> Mapping[str, str]:
        """What must be the same when the run goes on."""
        return {
            "model": self.model.digest,
            "data": self.samples.evaluation.digest,
            "calibration": self.samples.calibration.digest,
            "metric": digest_of(self.metric.key),
        }


def start_search(request: SearchRequest, run: Path, listener: Listener, clock: Clock) -> SearchResult:
    """Search in a new folder. Raises InputError; a folder in which nothing was computed yet is removed again."""
    begin = clock()
    folder = RunFolder(run)
    folder.refuse_existing()
    opening = _open(request, load_space(request.space))
    folder.create()
    with folder.locked():
        folder.refuse_existing()  # once more: another process may have been as quick
        try:
            write_text(folder.space, opening.space_file.text)
            folder.write_request({"request": request.as_table(), "digests": opening.digests(), "versions": _versions()})
            return _search(opening, folder, listener, clock, begin)
        except AutoquantError:
            if not folder.journal.exists():
                shutil.rmtree(run, ignore_errors=True)
            raise


def resume_search(run: Path, listener: Listener, clock: Clock, **changed: Any) -> SearchResult:
    """Go on with a run, nothing finished lost.

    `changed` are fields of the request given anew: the budget, and what was in memory. Raises UsageError for others,
    RunError when model, data or metric are not those of the run.
    """
    begin = clock()
    folder = RunFolder(run)
    folder.require_run()
    with folder.locked():
        stored = folder.read_request()
        request = SearchRequest.from_table(stored["request"], str(folder.request), **changed)
        opening = _open(request, folder.read_space())
        for what, digest in opening.digests().items():
            if stored["digests"][what] != digest:
                named = getattr(request, what) or request.data
                hint = "resume with what the run was started with, or start a new run"
                raise RunError(str(run), f"the {what} ({named}) is not what the run was started with", hint=hint)
        if stored.get("versions") != _versions():
            listener(Warned("the run was started with other versions of its libraries: scores may differ a little"))
        return _search(opening, folder, listener, clock, begin)


def _open(request: SearchRequest, space_file: SpaceFile) -> Opening:
    metric = open_metric(request.metric)
    model = open_model(request.model, inputs=request.inputs, outputs=request.outputs)
    samples = open_samples(request, model, seed=request.seed)
    require_labels(metric, samples.evaluation)
    workload = Workload.of(model, samples.evaluation)
    batches = batches_in(samples.calibration, request.batch_size)
    space = SearchSpace(space_file, list(workload.layers.values()), batches=batches)
    return Opening(request, model, samples, workload, space, space_file, metric)


def _search(opening: Opening, folder: RunFolder, listener: Listener, clock: Clock, begin: float) -> SearchResult:
    for text in _doubts(opening):
        listener(Warned(text))
    try:
        return _prepared(opening, folder, listener, clock, begin).run()
    except OSError as error:  # the study's journal, mostly: all else says so itself
        raise unwritable(Path(error.filename or folder.path), error) from error


def _doubts(opening: Opening) -> Iterator[str]:
    """What a person should know before it begins."""
    if opening.workload.unit != MACS:
        yield "multiply-adds are not known for every layer: shares are of parameters instead"
    evaluation, calibration = opening.samples.evaluation, opening.samples.calibration
    if opening.request.calibration is not None and evaluation.source.digest == calibration.source.digest:
        yield "calibration and evaluation data are the same: the score is better than it will be on other data"


def _prepared(opening: Opening, folder: RunFolder, listener: Listener, clock: Clock, begin: float) -> Loop:
    request, model, samples = opening.request, opening.model, opening.samples
    listener(_opened(opening, folder))
    engine = TensorFlowEngine()
    baseline = score_baseline(
        engine,
        model,
        samples.evaluation,
        opening.metric,
        batch_size=request.batch_size,
        kept=folder.baseline,
        on_progress=lambda done, total: listener(Progress("baseline", done, total)),
        on_warning=lambda text: listener(Warned(text)),
    )
    allowed = request.tolerance.absolute(baseline.score.value)
    limit = worst_allowed(baseline.score.value, allowed, higher_is_better=opening.metric.higher_is_better)
    listener(BaselineScored(opening.metric.name, baseline.score.value, allowed, limit))
    statistics = calibrate(
        engine,
        model,
        opening.workload.layers,
        samples.calibration,
        opening.space.batch_nums,
        batch_size=request.batch_size,
        kept=folder.statistics,
        on_progress=lambda done, total: listener(Progress("calibration", done, total)),
    )
    listener(Calibrated(max(statistics.batch_nums)))
    builder = Builder(
        model, opening.workload, Calibrator(model.graph, opening.workload.layers, statistics), TensorFlowTarget()
    )
    bench = Workbench(builder, samples.evaluation, opening.metric, baseline, engine, request.batch_size)
    study = Study(folder.journal, opening.space, seed=request.seed, allowed=allowed)
    return Loop(bench, opening.space, study, folder, request, allowed, listener, clock, begin)


def _opened(opening: Opening, folder: RunFolder) -> Opened:
    return Opened(
        run=folder.path,
        model=opening.model.name,
        layers=len(opening.workload.layers),
        macs=sum(opening.workload.costs.values()) if opening.workload.unit == MACS else None,
        samples=len(opening.samples.evaluation),
        calibration_samples=len(opening.samples.calibration),
        max_trials=opening.request.max_trials,
        timeout=opening.request.timeout,
    )


def _versions() -> dict[str, str]:
    return {"autoquant": __version__, **{name: version(name) for name in ("numpy", "optuna", "tensorflow")}}
