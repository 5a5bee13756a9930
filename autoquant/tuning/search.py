"""The search from beginning to end: open, baseline, calibrate, trials until the target or the budget, result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autoquant import __version__
from autoquant.calibration.record import Calibrator
from autoquant.errors import AutoquantError, DataError, RunError
from autoquant.evaluation.metrics import Metric, open_metric, require_labels
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.files import unwritable, write_text
from autoquant.formats.space_toml import SpaceFile, load_space
from autoquant.model.model import Model, open_model
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.events import BaselineScored, Calibrated, Event, Finished, Listener, Opened, Progress, Warned
from autoquant.tuning.loop import Loop
from autoquant.tuning.prepare import Samples, batches_in, calibrate, digest_of, open_samples, score_baseline
from autoquant.tuning.request import IN_MEMORY, SearchRequest
from autoquant.tuning.result import SearchResult
from autoquant.tuning.run_folder import RunFolder
from autoquant.tuning.space import SearchSpace
from autoquant.tuning.study import Study
from autoquant.tuning.tolerance import Tolerance, worst_allowed
from autoquant.tuning.workbench import Builder, Workbench
from autoquant.tuning.workload import MACS, Workload

Clock = Callable[[], float]
Report = Callable[[SearchResult], None]
OTHER_VERSIONS = "the run was started with other versions of its libraries: scores may differ a little"


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


def start_search(request: SearchRequest, run: Path, listener: Listener, clock: Clock, report: Report) -> SearchResult:
    """Search in a new folder. Raises InputError; a folder in which nothing was computed yet is removed again.

    `report` is called with the result while the run is still ours, to write about it.
    """
    begin = clock()
    folder = RunFolder(run)
    folder.refuse_existing()
    opening = _open(request, load_space(request.space), _model(request))
    # All data is read for its digest, which takes long: only then is there a folder, and a run to go on with.
    table = {"request": request.as_table(), "digests": opening.digests(), "versions": _versions()}
    made = folder.create()
    with folder.locked():
        folder.refuse_existing()  # once more: another process may have been as quick
        try:
            write_text(folder.space, opening.space_file.text)
            folder.write_request(table)
            return _search(opening, folder, listener, clock, begin, report)
        except AutoquantError:
            if not folder.journal.exists():
                folder.remove_beginnings(folder_too=made)
            raise


def resume_search(run: Path, listener: Listener, clock: Clock, report: Report, **changed: Any) -> SearchResult:
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
        model = _model(request)
        _same(run, request, stored["digests"], {"model": model.digest})  # another model's data would not even fit
        opening = _open(request, folder.read_space(), model)
        _same(run, request, stored["digests"], opening.digests())
        doubts = [] if stored.get("versions") == _versions() else [OTHER_VERSIONS]
        folder.write_request({**stored, "request": request.as_table()})  # the budget stays, if this is cut off too
        return _search(opening, folder, listener, clock, begin, report, doubts)


def _same(run: Path, request: SearchRequest, stored: Mapping[str, str], digests: Mapping[str, str]) -> None:
    for what, digest in digests.items():
        if stored[what] != digest:
            given = getattr(request, what) or request.data
            named = given if isinstance(given, str | Path) else IN_MEMORY
            hint = "resume with what the run was started with, or start a new run"
            raise RunError(str(run), f"the {what} ({named}) is not what the run was started with", hint=hint)


def _model(request: SearchRequest) -> Model:
    return open_model(request.model, inputs=request.inputs, outputs=request.outputs)


def _open(request: SearchRequest, space_file: SpaceFile, model: Model) -> Opening:
    metric = open_metric(request.metric)
    samples = open_samples(request, model, seed=request.seed)
    require_labels(metric, samples.evaluation)
    workload = Workload.of(model, samples.evaluation)
    batches = batches_in(samples.calibration, request.batch_size)
    space = SearchSpace(space_file, list(workload.layers.values()), batches=batches)
    return Opening(request, model, samples, workload, space, space_file, metric)


def _search(
    opening: Opening,
    folder: RunFolder,
    listener: Listener,
    clock: Clock,
    begin: float,
    report: Report,
    doubts: Iterable[str] = (),
) -> SearchResult:
    warnings: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)
        listener(event)

    for text in (*doubts, *_doubts(opening)):
        hear(Warned(text))
    try:
        result = _prepared(opening, folder, hear, clock, begin).run()
    except OSError as error:  # the study's journal, mostly: all else says so itself
        raise _resumable(unwritable(Path(error.filename or folder.path), error), folder) from error
    except (RunError, DataError) as error:
        raise _resumable(error, folder) from error
    result = replace(result, warnings=tuple(warnings))
    try:
        report(result)
    except RunError as error:  # the verdict is known, and is told all the same
        listener(Warned(str(error)))
    listener(Finished(result))
    return result


def _resumable(error: RunError | DataError, folder: RunFolder) -> RunError | DataError:
    """The same error; once there are trials the way out is to go on with them."""
    if not folder.journal.exists():
        return error
    hint = f"mend that; what was finished is kept, and `autoquant resume {folder.path}` goes on"
    return type(error)(error.where, error.what, hint=hint)


def _doubts(opening: Opening) -> Iterator[str]:
    """What a person should know before it begins."""
    if opening.workload.unit != MACS:
        yield f"multiply-adds are not known for every layer: shares are of {opening.workload.unit} instead"
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
    )
    for text in baseline.warnings:
        listener(Warned(text))
    allowed = request.tolerance.absolute(baseline.score.value)
    limit = worst_allowed(baseline.score.value, allowed, higher_is_better=opening.metric.higher_is_better)
    if opening.metric.of_classes and limit <= 0.0:
        _refuse_or_warn(request.tolerance, baseline.score.value, listener)
    listener(BaselineScored(opening.metric.name, baseline.score.value, allowed, limit))
    statistics = calibrate(
        engine,
        model,
        opening.space.layers,
        samples.calibration,
        opening.space.batch_nums,
        batch_size=request.batch_size,
        balanced=opening.space.balanced,
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
    )


def _versions() -> dict[str, str]:
    return {"autoquant": __version__, **{name: version(name) for name in ("numpy", "optuna", "tensorflow")}}
