"""Applying a plan to a model, the one it was found for or one trained again, without any search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoquant.calibration.plan import Plan, check_left_in_float, check_plan
from autoquant.errors import PlanError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.checks import check_calibration
from autoquant.evaluation.engines.table import open_engine
from autoquant.formats.config_json import load_config
from autoquant.model.layer import Layer
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import builder_of_plan
from autoquant.tuning.evaluation.evaluate import evaluate
from autoquant.tuning.events import Listener, Warned, progress, reporter
from autoquant.tuning.export import Export, make_export, remove_claims
from autoquant.tuning.inputs import calibration_samples, open_dataset
from autoquant.tuning.quantize_request import QuantizeRequest
from autoquant.tuning.study.workload import Workload


def apply_plan(request: QuantizeRequest, listener: Listener) -> Export:
    """Calibrate, build and save, and evaluate where there is data for that.

    Raises PlanError where the config does not fit the model or the target, TrialError where a layer cannot be quantized
    as it says, DataError where the data misleads (`check_calibration`).
    """
    judged, config, to = request.evaluation(), Path(request.config), Path(request.to)
    wanted, size = load_config(config), request.batch_size
    reporter(listener, "opening the model")
    opened = request.open_model(request.model, request.target, wanted.fusion)
    reporter(listener, "reading the data")
    most = calibration_samples(wanted.batch_num, size)
    data = open_dataset(request, opened, request.calibration, room=CacheRoom(to), most=most)
    check_calibration(data)
    target = open_target(
        request.target,
        io=request.io,
        simulation=request.simulation,
        profile=request.profile,
        integer_only=request.integer_only,
    )
    reporter(listener, f"lowering the model for {target.name}")
    lowered = target.lowered(opened)
    workload = Workload.of(target, lowered, data)
    plan = _fitting_plan(config, workload.layers, request.target, request.profile)
    builder = builder_of_plan(
        plan,
        lowered,
        workload,
        target,
        open_engine(TARGETS[request.target].runtime),
        data,
        batch_size=size,
        on_progress=reporter(listener, "calibration"),
        on_between=partial(progress, listener, "operators between layers"),
        on_rounding=partial(progress, listener, "weight rounding"),
        on_training=partial(progress, listener, "training"),
        warn=lambda text: listener(Warned(text)),
    )
    made = make_export(to, target.file_name(opened.name))
    reporter(listener, "building")
    builder.build(plan, made.folder)
    remove_claims(made)
    found = None if judged is None else evaluate([request.model, made.model], judged, listener=listener)
    return replace(made, notes=opened.notes, evaluation=found)


def _fitting_plan(config: Path, layers: Mapping[str, Layer], target: str, profile: str) -> Plan:
    """The plan of a config.json for these layers. Raises PlanError."""
    try:
        plan = load_config(config, layers=layers)
        check_plan(plan, layers)
        check_left_in_float(plan, layers)
    except PlanError as error:
        there = f"--target {target} --profile {profile}" if profile else f"--target {target}"
        kind = "device" if profile else "target"
        other = f"`autoquant export RUN {there}` makes it fit if it was made for another {kind}"
        raise PlanError(error.where, error.what, hint=f"{error.hint}; {other}") from None
    return plan
