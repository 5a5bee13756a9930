"""What a Python program calls; the command line calls the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from autoquant.evaluation.latency.latency import Latency
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.model.in_memory import is_in_memory, model_file, on_model_file
from autoquant.options import path, reads_options, whole
from autoquant.reports.explanation import Explanation, explain_trials, read_trials
from autoquant.reports.junit import evaluation_cases, junit_report, search_cases, stored_junit
from autoquant.reports.notebook import NotebookResult
from autoquant.reports.writer import ReportWriter
from autoquant.tuning import benchmark as measuring
from autoquant.tuning import search as searching
from autoquant.tuning.benchmark import BenchmarkOptions, BenchmarkRequest
from autoquant.tuning.evaluation import evaluate as evaluating
from autoquant.tuning.evaluation.request import EvaluateOptions, EvaluateRequest
from autoquant.tuning.evaluation.result import Evaluation
from autoquant.tuning.event_log import log_event
from autoquant.tuning.events import Listener, Warned
from autoquant.tuning.export import Export, StoredTrial, export_float, export_trial
from autoquant.tuning.inspection import Inspection, inspect_model
from autoquant.tuning.quantize import apply_plan
from autoquant.tuning.quantize_request import QuantizeOptions, QuantizeRequest
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.model_request import InspectOptions, InspectRequest
from autoquant.tuning.study.request import SearchOptions, SearchRequest

if TYPE_CHECKING:  # which loads TensorFlow, as some functions do when they are called
    from autoquant.targets.check import CheckResult
    from autoquant.targets.profiles.check import DeviceCheck
    from autoquant.tuning.dry_run import Estimate
    from autoquant.tuning.fleet.status import Status


@reads_options(SearchOptions, samples=whole)
def search(
    model: Any,
    data: Any,
    *,
    tolerance: float | str | Tolerance = "1%",
    guard_tolerance: float | str | Tolerance | None = None,
    run: str | Path | None = None,
    listener: Listener = log_event,
    clock: Callable[[], float] = time.monotonic,
    **options: Unpack[SearchOptions],
) -> SearchResult:
    """Find the INT8 model that keeps the tolerance with as many multiply-adds in INT8 as possible.

    Args:
        model: a frozen .pb, a SavedModel folder, a .keras, .h5 or .tflite file; or a Keras model, a tf.Module, a
            function or concrete function of TensorFlow, or a SavedModel that was loaded, which is saved in the run.
        data: evaluation data, and likewise `calibration` and `certify`: an .npz or .csv file, a folder of images by
            class, TFRecords, 'module:function', arrays `(x, y)`, a mapping of arrays by name, a pandas frame, or
            what gives batches: a tf.data.Dataset, a PyDataset, a function, a generator (`autoquant guide data`).
        tolerance: the allowed drop of the metric, absolute (0.005) or relative to the FP32 score ('1%').
        guard_tolerance: the same for every group that `guard` names; by default the tolerance.
        run: the folder to make; by default `runs/<model>-<date>-<time>-<process>`.
        listener: is called with every event (`autoquant.tuning.events`), and ends the search by raising
            `autoquant.StopSearch`; by default events are logged to `logging.getLogger("autoquant")`.
        clock: gives seconds; for the time budget.
        options: calibration, metric ('top1'), target ('tensorflow'), engine ('auto'), io ('float32'), profile
            ('', that of a device), integer_only (False), objective ('macs'), max_trials (100), timeout (seconds, or
            '2h'), space (that of the target), sampler ('guided'), seed (0), batch_size (50), preprocess, scale, mean,
            std, label_offset, image_size, inputs, outputs, signature, feed, error_rate (0.05), certify, confidence
            (0.95), unit, guard, allow_overlap, stop_on_target, keep_models (1), keep_all_models, samples (24),
            min_baseline, min_speedup, junit, jobs (1), storage, study, artifacts, trust_model;
            `autoquant.tuning.study.request.SearchRequest` says what each is.

    Returns:
        The result: verdict, best plan and score, paths, all trials. Ctrl-C ends the search in good order, and so does
        StopSearch; the result's `ended` then is 'interrupted', or 'stopped by its listener', and `resume` goes on.

    Raises:
        autoquant.errors.InputError: something given cannot be used; the message says where, what, and the way out.
        autoquant.errors.BudgetError: `timeout` was over, or the search was stopped, before the first trial ended;
            `resume` goes on with the run.
    """
    asked: dict[str, Any] = {**options, "tolerance": tolerance, "guard_tolerance": guard_tolerance}
    with model_file(model) as file:
        request = SearchRequest(model=file, data=data, **asked)
        return run_search(request, run=run, listener=listener, clock=clock, adopt_model=is_in_memory(model))


@reads_options(SearchOptions, samples=whole)
def dry_run(
    model: Any,
    data: Any,
    *,
    tolerance: float | str | Tolerance = "1%",
    guard_tolerance: float | str | Tolerance | None = None,
    run: str | Path | None = None,
    listener: Listener = log_event,
    clock: Callable[[], float] = time.monotonic,
    **options: Unpack[SearchOptions],
) -> Estimate:
    """Open and check all of a search, and try one plan on a few samples: what time, disk and memory it will take.

    Arguments are those of `search`. Nothing is searched, and no run is made. Raises as `search`, and TrialError where
    no INT8 model can be built.
    """
    from autoquant.tuning.dry_run import dry_run as estimated

    asked: dict[str, Any] = {**options, "tolerance": tolerance, "guard_tolerance": guard_tolerance}
    with model_file(model) as file:
        return estimated(SearchRequest(model=file, data=data, **asked), run, listener, clock)


def run_search(
    request: SearchRequest,
    *,
    run: str | Path | None = None,
    listener: Listener = log_event,
    clock: Callable[[], float] = time.monotonic,
    adopt_model: bool = False,
) -> SearchResult:
    """What `search` does with its request; for callers that have checked one before TensorFlow is imported.

    With `adopt_model` the file of the model is moved into the run.
    """
    written = ReportWriter(listener, clock)
    with junit_report(request.junit, f"search {Path(request.model).stem}") as write_junit:
        result = searching.start_search(request, run, written, clock, adopt_model=adopt_model)
        write_junit(search_cases(result))
    return NotebookResult.of(result)


@reads_options(SearchRequest, model=path, samples=whole)
def resume(
    run: str | PathLike[str],
    *,
    listener: Listener = log_event,
    clock: Callable[[], float] = time.monotonic,
    accept_changed: Collection[str] = (),
    **changed: Any,
) -> SearchResult:
    """Go on with a run that was interrupted, killed, or whose budget was too small; nothing finished is lost.

    `changed` are options of the search given anew: max_trials, timeout, trial_timeout, isolate, jobs, stop_on_target,
    keep_models, keep_all_models, min_baseline, min_speedup, junit, whatever was given in memory but the model, which
    the run has, and model, data, calibration, metric, and the storage of its study, where they were moved. Raises
    RunError when these are not those of the run; but with `accept_changed`, of 'metric' and 'calibration', another one
    is taken, and all trials are scored again with it.
    """
    written, folder = ReportWriter(listener, clock), Path(run)
    junit = stored_junit(folder, changed.get("junit"), lambda text: listener(Warned(text)))
    with junit_report(junit, f"resume {folder.name}") as write_junit:
        result = searching.resume_search(folder, written, clock, accept_changed=accept_changed, **changed)
        write_junit(search_cases(result))
    return NotebookResult.of(result)


@reads_options()
def work(
    storage: str = "",
    study: str = "",
    *,
    run: str | PathLike[str] | None = None,
    model: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    metric: str | None = None,
    max_trials: int | None = None,
    idle: float | None = None,
    trust_model: bool = False,
    listener: Listener = log_event,
) -> str:
    """Carry out trials of a search that runs elsewhere, until it ends; gives why this ended.

    The search is a `study` in a `storage`, the URL of a database without a password, or that of a `run`, a folder on a
    disk that both have. `model`, `data`, `calibration` and the file of a `metric` say where these are here, if not
    where they are for the search. It leaves after `max_trials`, or `idle` seconds without one. Raises RunError where
    something here is not what the search has, StorageError where the storage is away for too long.
    """
    from autoquant.tuning.fleet.worker import work_for

    given: dict[str, Any] = {"model": model, "data": data, "calibration": calibration, "metric": metric}
    given |= {"max_trials": max_trials, "idle": idle}
    some: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    folder = None if run is None else Path(run)
    return work_for(folder, storage=storage, study=study, listener=listener, trust_model=trust_model, **some)


@reads_options()
def status(
    run: str | PathLike[str] | None = None,
    *,
    storage: str = "",
    study: str = "",
) -> Status:
    """What a search and its workers are doing, by its run or by its study in a storage; nothing is changed.

    Raises RunError where there is no such search, StorageError where the storage is away.
    """
    from autoquant.tuning.fleet.status import read_status

    return read_status(None if run is None else Path(run), storage=storage, study=study)


@reads_options(SearchRequest, model=path, samples=whole)
def export(
    run: str | PathLike[str],
    to: str | Path,
    *,
    trial: int | None = None,
    target: str | None = None,
    profile: str | None = None,
    integer_only: bool | None = None,
    io: str | None = None,
    simulation: bool = True,
    listener: Listener = log_event,
    **given: Any,
) -> Export:
    """Write config.json, record.txt and the model of the best trial, or of another, to a folder.

    Of a run that ships the float model (min_speedup) it is that one, unless a trial or any of these is named.

    `target` builds the same plan for another target than the run's, and scores it there: the two do not compute the
    same numbers. The score is in the result's `transferred` and in score.json. `io` likewise is the type of the
    inputs and outputs of a .tflite, `profile` the device that it must suit, and `integer_only` whether it has no
    operator in float; by default all are as in the run. A model that was deleted is built again.
    `simulation` False leaves the functions out that let a graph run in stock TensorFlow, for converters that do not
    want them. `listener` is told what takes long. `given` are data and functions that the run had in memory, where they
    are needed again, and model, data, calibration and metric where they were moved. Raises RunError.
    """
    elsewhere: dict[str, Any] = {"target": target, "io": io, "profile": profile, "integer_only": integer_only}
    if trial is None and not any(elsewhere.values()) and (made := export_float(Path(run), Path(to))) is not None:
        return made
    stored = StoredTrial.load(Path(run), trial)
    return export_trial(stored, Path(to), **elsewhere, simulation=simulation, listener=listener, **given)


@reads_options()
def explain(run: str | PathLike[str]) -> Explanation:
    """Explain a run: the measured effect of each setting and of each float layer, and why layers are in float.

    All of it was measured by its trials. The run may be going on, or have been cut off; the model is not needed. Raises
    RunError where there is no run, no trial of it has ended, or a file of one is damaged.
    """
    return explain_trials(read_trials(Path(run)))


@reads_options(QuantizeOptions)
@on_model_file
def quantize(
    model: Any,
    config: str | Path,
    calibration: Any,
    to: str | Path,
    *,
    listener: Listener = log_event,
    **options: Unpack[QuantizeOptions],
) -> Export:
    """Apply a config.json to a model, the one it was found for or one trained again, without any search.

    `model` and `calibration` are what `search` takes as model and data. `options` are target ('tensorflow'), io
    ('float32'), profile ('', that of a device), integer_only (False), simulation (True; False leaves the functions out
    that let the model run in stock TensorFlow), data, on which what was made is compared with the float model as
    `evaluate` does, by metric ('top1') and perhaps a tolerance, for the result's `evaluation`; preprocess, scale, mean,
    std, label_offset, image_size, batch_size (50), inputs, outputs, signature, feed and trust_model;
    `autoquant.tuning.quantize_request.QuantizeRequest` says what each is. `listener` is told what takes
    long, as that of a search.

    Raises PlanError where the config does not fit the model or the target, TrialError where a layer cannot be quantized
    as it says, DataError where the data misleads.
    """
    asked: dict[str, Any] = {**options, "config": config, "calibration": calibration, "to": to}
    return apply_plan(QuantizeRequest(model=model, **asked), listener)


@reads_options(BenchmarkOptions)
def benchmark(
    *models: Any,
    samples: Sequence[Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    listener: Listener = log_event,
    **options: Unpack[BenchmarkOptions],
) -> Latency:
    """Measure how long models take on this machine, side by side; the first is what the others are compared with.

    A model is a .tflite, a run whose best is one, or a file or an object of TensorFlow, which is converted to float.
    `samples` is a batch for each input in the order of the file; without it numbers are random. `options` are threads
    (1), batch_size (1), repeat (as often as three seconds allow), image_size, and signature, feed and trust_model (of
    models of TensorFlow).
    `listener` is told what takes long.
    Raises ModelError where a model cannot be run.
    """
    asked: dict[str, Any] = {**options}
    request = BenchmarkRequest(**asked)
    with ExitStack() as stack:
        files = [stack.enter_context(model_file(model)) for model in models]
        return measuring.benchmark(files, request, samples=samples, clock=clock, listener=listener)


@reads_options(EvaluateOptions)
def evaluate(
    *models: Any,
    data: Any,
    listener: Listener = log_event,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Score models of any kind, float or INT8, on the same samples; the first is what the others are paired with.

    A model is a frozen .pb, an INT8 .pb that was saved here, a SavedModel folder, a .keras, .h5 or .tflite file by
    whichever tool, a run, whose best is meant, or a model in memory as `search` takes it. `data` is as of `search`.
    `options` are metric ('top1'), tolerance, guard, guard_tolerance, unit, confidence (0.95), certify (a folder for the
    certificate of the second model), junit (a file for verdicts as test cases), min_baseline, preprocess, scale, mean,
    std, label_offset, image_size, batch_size (50), inputs, outputs, signature, feed and trust_model;
    `autoquant.tuning.evaluation.request.EvaluateRequest` says what each is. `listener` is told what takes long. Raises
    InputError for what cannot be opened, run, fed or compared, BaselineError where the first is too bad.
    """
    given: dict[str, Any] = {**options}
    request = EvaluateRequest(data=data, **given)
    with ExitStack() as stack, junit_report(request.junit, "evaluate") as write_junit:
        files = [stack.enter_context(model_file(model)) for model in models]
        found = evaluating.evaluate(files, request, listener=listener)
        write_junit(evaluation_cases(found))
    return found


@reads_options(InspectOptions)
@on_model_file
def inspect(model: Any, *, listener: Listener = log_event, **options: Unpack[InspectOptions]) -> Inspection:
    """Look at a model: its layers, what they cost, and what looks quantizable but is not.

    `model` is what `search` takes. `options` are target ('tensorflow' or 'litert', by default where the model is from;
    for 'litert' the model is converted first), profile, that of a device, for what it could not take of the model,
    integer_only (False), for what has no integer kernel, calibration, data with which the sensitivity of each layer is
    found as well, and how both are read: preprocess, scale, mean, std, image_size, batch_size (50), inputs, outputs,
    signature, feed and trust_model;
    `autoquant.tuning.study.model_request.InspectRequest` says what each is. `listener` is told what takes long. Raises
    ModelError, UsageError.
    """
    asked: dict[str, Any] = {**options}
    return inspect_model(InspectRequest(model=model, **asked), listener)


@reads_options(model=path)
def check(model: str | Path, record: str | Path | None = None) -> CheckResult:
    """Compare a quantized .pb with its record: by default `<model>_record.txt` or record.txt in the same folder.

    Raises ModelError where the file is not a quantized graph, PlanError where anything is not as the record says.
    """
    from autoquant.targets.check import check_file

    return check_file(Path(model), None if record is None else Path(record))


@reads_options(model=path)
def check_device(model: str | Path, profile: str) -> DeviceCheck:
    """Compare an INT8 .tflite, by whichever tool, with the profile of a device (`autoquant guide profiles`).

    What breaks it is in `violations`; operators, types and scales are read from the file. Raises ModelError where the
    file is no INT8 .tflite, UsageError for a profile that there is not.
    """
    from autoquant.targets.profiles.check import check_int8_file

    return check_int8_file(Path(model), profile)
