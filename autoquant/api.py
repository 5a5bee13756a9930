"""What a Python program calls; the command line calls the same."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from autoquant.calibration.plan import check_plan
from autoquant.calibration.record import Calibrator
from autoquant.errors import ModelError, RunError, UsageError
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.files import unwritable, write_bytes, write_text
from autoquant.formats.config_json import load_config
from autoquant.formats.quant_json import quant_json_path
from autoquant.formats.record_text import load_record
from autoquant.model.layers import Survey, survey
from autoquant.model.model import Model, open_model
from autoquant.reports.result_json import result_text
from autoquant.targets.check import Checked
from autoquant.targets.check import check as compare
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning import search as searching
from autoquant.tuning.events import Event, Listener
from autoquant.tuning.prepare import calibrate, open_one
from autoquant.tuning.request import DataOptions, DataRequest, SearchOptions, SearchRequest
from autoquant.tuning.result import SearchResult
from autoquant.tuning.run_folder import RunFolder
from autoquant.tuning.tolerance import Tolerance
from autoquant.tuning.workbench import Builder
from autoquant.tuning.workload import Workload


def nobody(event: Event) -> None:
    """A listener that does not listen."""


def search(
    model: str | Path,
    data: Any,
    *,
    tolerance: float | str = "1%",
    run: str | Path | None = None,
    listener: Listener = nobody,
    clock: Callable[[], float] = time.monotonic,
    **options: Unpack[SearchOptions],
) -> SearchResult:
    """Find the INT8 model that keeps the tolerance with as many multiply-adds in INT8 as possible.

    Args:
        model: a frozen .pb, a SavedModel folder, a .keras or .h5 file.
        data: evaluation data: an .npz file, a folder of images by class, TFRecords, 'module:function', arrays
            `(x, y)`, a mapping of arrays by name, or a function that gives batches.
        tolerance: the allowed drop of the metric, absolute (0.005) or relative to the FP32 score ('1%').
        run: the folder to make; by default `runs/<model>-<date>-<time>-<process>`.
        listener: is called with every event (`autoquant.tuning.events`).
        clock: gives seconds; for the time budget.
        options: calibration, metric ('top1'), max_trials (100), timeout (seconds), space ('default'), seed (0),
            batch_size (50), preprocess, scale, mean, std, label_offset, image_size, inputs, outputs, stop_on_target,
            keep_all_models; `autoquant.tuning.request.SearchRequest` says what each is.

    Returns:
        The result: verdict, best plan and score, paths, all trials. Ctrl-C ends the search in good order; the
        result's `ended` then is 'interrupted'.

    Raises:
        autoquant.errors.InputError: something given cannot be used; the message says where, what, and the way out.
    """
    try:
        request = SearchRequest(model=model, data=data, tolerance=Tolerance.parse(tolerance), **options)
    except TypeError as error:
        raise UsageError("search()", str(error), hint="see help(autoquant.search)") from None
    folder = Path(run) if run is not None else default_run(model)
    return searching.start_search(request, folder, listener, clock, _report)


def resume(
    run: str | Path,
    *,
    listener: Listener = nobody,
    clock: Callable[[], float] = time.monotonic,
    **changed: Any,
) -> SearchResult:
    """Go on with a run that was interrupted, killed, or whose budget was too small; nothing finished is lost.

    `changed` are options of the search given anew: max_trials, timeout, stop_on_target, keep_all_models, and whatever
    was given in memory. Raises RunError when model, data or metric are not those of the run.
    """
    return searching.resume_search(Path(run), listener, clock, _report, **changed)


@dataclass(frozen=True, slots=True)
class Export:
    """Files of one plan in a folder of the user's."""

    folder: Path
    config: Path
    record: Path
    model: Path
    trial: int | None = None

    @property
    def mapping(self) -> Path:
        """Which nodes of the model stand for which of the float graph."""
        return quant_json_path(self.model)


def export(run: str | Path, to: str | Path, *, trial: int | None = None, simulation: bool = True) -> Export:
    """Write config.json, record.txt and the model of the best trial, or of another, to a folder.

    A model that was deleted is built again from its record. `simulation` False leaves the functions out that let the
    model run in stock TensorFlow, for converters that do not want them. Raises RunError.
    """
    folder = RunFolder(Path(run))
    folder.require_run()
    stored = folder.read_request()
    # Resolved once: a search that is going on may move `best` meanwhile.
    source = (folder.best if trial is None else folder.trial(trial)).resolve()
    if not ((source / "record.txt").is_file() and (source / "score.json").is_file()):
        what = "has no best trial yet" if trial is None else f"has no trial {trial} that was carried out"
        raise RunError(str(run), what, hint="`autoquant resume` goes on with the run")
    target = TensorFlowTarget(simulation=simulation)
    name = target.file_name(Path(stored["request"]["model"]).stem)
    number = int(json.loads((source / "score.json").read_text(encoding="utf-8"))["trial"])
    made = _make_export(Path(to), name, number)
    record = load_record(source / "record.txt")
    kept = source / name
    try:
        files = {made.model: kept.read_bytes(), made.mapping: quant_json_path(kept).read_bytes()} if simulation else {}
    except FileNotFoundError:  # deleted, as it was not the best
        files = {}
    for path, content in files.items():
        write_bytes(path, content)
    if not files:
        opened = _model_of(stored, folder)
        target.save(opened.graph, survey(opened.graph).by_name, record, made.model)
    for file in (made.config, made.record):
        write_bytes(file, (source / file.name).read_bytes())
    return made


def quantize(
    model: str | Path,
    config: str | Path,
    calibration: Any,
    to: str | Path,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    simulation: bool = True,
    **options: Unpack[DataOptions],
) -> Export:
    """Apply a config.json to a model, the one it was found for or one trained again, without any search.

    `simulation` False leaves the functions out that let the model run in stock TensorFlow. `options` say how the data
    becomes what the model takes: preprocess, scale, mean, std, image_size, batch_size. Raises PlanError where the
    config does not fit the model, TrialError where a layer cannot be quantized as it says.
    """
    request = DataRequest(data=calibration, **options)
    fusion = load_config(Path(config)).fusion
    opened = open_model(model, inputs=inputs, outputs=outputs, fusion=fusion)
    data = open_one(request, opened, calibration)
    workload = Workload.of(opened, data)
    plan = load_config(Path(config), layers=workload.layers)
    check_plan(plan, workload.layers)
    engine, target = TensorFlowEngine(), TensorFlowTarget(simulation=simulation)
    statistics = calibrate(
        engine,
        opened,
        {name: workload.layers[name] for name in plan.int8},
        data,
        [plan.batch_num],
        batch_size=request.batch_size,
        balanced=[name for name, settings in plan.int8.items() if settings.dmq is not None],
        exact=plan.exact or False,
        sketched=plan.sketched,
    )
    builder = Builder(opened, workload, Calibrator(opened.graph, workload.layers, statistics), target)
    made = _make_export(Path(to), target.file_name(opened.name), None)
    builder.build(plan, made.folder)
    return made


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model and what of it can be quantized."""

    model: Model
    survey: Survey


def inspect(model: str | Path, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Inspection:
    """Look at a model: its layers, what they cost, and what looks quantizable but is not. Raises ModelError."""
    opened = open_model(model, inputs=inputs, outputs=outputs)
    return Inspection(opened, survey(opened.graph))


def check(model: str | Path, record: str | Path | None = None) -> Checked:
    """Compare a quantized .pb with its record: by default record.txt in the same folder.

    Raises ModelError where the file is no quantized graph, PlanError where anything is not as the record says.
    """
    path = Path(model)
    if not path.is_file():
        raise ModelError(str(path), "there is no such file", hint="give a quantized .pb")
    return compare(path, load_record(path.with_name("record.txt") if record is None else Path(record)))


def default_run(model: str | Path) -> Path:
    """Where a search runs when nobody says: runs/<model>-<date>-<time>-<process>, which no other process chooses."""
    return Path("runs") / f"{Path(model).stem}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


def _report(result: SearchResult) -> None:
    write_text(RunFolder(result.run).result, result_text(result))


def _model_of(stored: Mapping[str, Mapping[str, Any]], folder: RunFolder) -> Model:
    """The model of a run. Raises RunError when it has changed since."""
    asked = stored["request"]
    model = open_model(asked["model"], inputs=asked.get("inputs", ()), outputs=asked.get("outputs", ()))
    if model.digest != stored["digests"]["model"]:
        what = f"its model {asked['model']} is not what the run was started with"
        raise RunError(str(folder.path), what, hint="put it back, or export the best trial, whose model is kept")
    return model


def _make_export(folder: Path, model: str, trial: int | None) -> Export:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return Export(folder, folder / "config.json", folder / "record.txt", folder / model, trial)
