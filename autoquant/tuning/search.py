"""The search from beginning to end: open, baseline, calibrate, trials until the target or the budget, result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
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
from autoquant.formats.space_toml import SpaceFile, load_space, parse_space
from autoquant.model.model import Model, open_model
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.events import BaselineScored, Calibrated, Listener, Opened, Progress, Warned
from autoquant.tuning.loop import Loop
from autoquant.tuning.prepare import Samples, batches_in, calibrate, open_samples, score_baseline
from autoquant.tuning.request import SearchRequest
from autoquant.tuning.result import SearchResult
from autoquant.tuning.run_folder import RunFolder
from autoquant.tuning.space import SearchSpace
from autoquant.tuning.study import Study
from autoquant.tuning.tolerance import worst_allowed
from autoquant.tuning.workbench import Builder, Workbench
from autoquant.tuning.workload import Workload

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
        }


def start_search(request: SearchRequest, run: Path, listener: Listener, clock: Clock) -> SearchResult:
    """Search in a new folder. Raises InputError; a folder in which nothing was computed yet is removed again."""
    folder = RunFolder(run)
    folder.refuse_existing()
    opening = _open(request, load_space(request.space))
    folder.create()
    try:
        with folder.locked():
            write_text(folder.space, opening.space_file.text)
            folder.write_request({"request": request.as_table(), "digests": opening.digests(), "versions": _versions()})
            return _search(opening, folder, listener, clock)
    except AutoquantError:
        if not folder.journal.exists():
            shutil.rmtree(run, ignore_errors=True)
        raise


def resume_search(run: Path, listener: Listener, clock: Clock, **changed: Any) -> SearchResult:
    """Go on with a run, nothing finished lost.

    `changed` are fields of the request given anew, such as a larger budget. Raises RunError when the model or the data
    are others than those of the run.
    """
    folder = RunFolder(run)
    folder.require_run()
    with folder.locked():
        stored = folder.read_request()
        request = SearchRequest.from_table(stored["request"], str(folder.request), **changed)
        opening = _open(request, parse_space(folder.space.read_text(encoding="utf-8"), str(folder.space)))
        for what, digest in opening.digests().items():
            if stored["digests"][what] != digest:
                named = getattr(request, what) or request.data
                hint = "resume with what the run was started with, or start a new run"
                raise RunError(str(run), f"the {what} ({named}) is not what the run was started with", hint=hint)
        return _search(opening, folder, listener, clock)


def _open(request: SearchRequest, space_file: SpaceFile) -> Opening:
    metric = open_metric(request.metric)
    model = open_model(request.model, inputs=request.inputs, outputs=request.outputs)
    samples = open_samples(request, model, batches=max(space_file.batch_num), seed=request.seed)
    require_labels(metric, samples.evaluation)
    workload = Workload.of(model, samples.evaluation)
    batches = batches_in(samples.calibration, request.batch_size)
    space = SearchSpace(space_file, list(workload.layers.values()), batches=batches)
    return Opening(request, model, samples, workload, space, space_file, metric)


def _search(opening: Opening, folder: RunFolder, listener: Listener, clock: Clock) -> SearchResult:
    try:
        return _prepared(opening, folder, listener, clock).run()
    except OSError as error:  # the study's journal, mostly: all else says so itself
        raise unwritable(Path(error.filename or folder.path), error) from error


def _prepared(opening: Opening, folder: RunFolder, listener: Listener, clock: Clock) -> Loop:
    request, model, samples = opening.request, opening.model, opening.samples
    listener(_opened(opening, folder))
    if not opening.workload.exact:
        listener(Warned("multiply-adds are not known for every layer: shares are of parameters instead"))
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
    calibrator = Calibrator(model.graph, opening.workload.layers, statistics)
    builder = Builder(model, opening.workload, calibrator, TensorFlowTarget())
    bench = Workbench(
        builder, samples.evaluation, samples.calibration, opening.metric, baseline, engine, request.batch_size
    )
    study = Study(folder.journal, opening.space, opening.workload, seed=request.seed, allowed=allowed)
    return Loop(bench, opening.space, study, folder, request, allowed, listener, clock)


def _opened(opening: Opening, folder: RunFolder) -> Opened:
    return Opened(
        run=folder.path,
        model=opening.model.name,
        layers=len(opening.workload.layers),
        macs=sum(opening.workload.costs.values()) if opening.workload.exact else None,
        samples=len(opening.samples.evaluation),
        calibration_samples=len(opening.samples.calibration),
        max_trials=opening.request.max_trials,
        timeout=opening.request.timeout,
    )


def _versions() -> dict[str, str]:
    return {"autoquant": __version__, **{name: version(name) for name in ("numpy", "optuna", "tensorflow")}}
