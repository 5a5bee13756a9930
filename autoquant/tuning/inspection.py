"""Looking at a model: its layers on a target, and what INT8 costs each of them, without any search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from autoquant.calibration.plan import Plan, layer_plan
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.checks import check_calibration
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.layer import Survey
from autoquant.model.model import Model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import builder_of_plan
from autoquant.tuning.events import Listener, progress, reporter
from autoquant.tuning.inputs import calibration_samples, open_dataset
from autoquant.tuning.profile_fit import ProfileFit, profile_fit
from autoquant.tuning.study.choices import TENSORFLOW
from autoquant.tuning.study.model_request import InspectRequest
from autoquant.tuning.study.workload import Workload

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.tuning.sensitivity.measure import Overview
    from autoquant.tuning.sensitivity.request import Between


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model in the form that a target quantizes, and what of it can be quantized there.

    `sensitivity` is how much each layer changes the output, where that was asked for, and `between` the same of the
    operators of a .tflite that are no layers. `fit` is what the device of a profile will not run, where one was named.
    """

    model: Model
    survey: Survey
    sensitivity: Overview | None = None
    between: Between | None = None
    fit: ProfileFit | None = None

    def __repr__(self) -> str:
        layers, rejected = self.survey.layers, self.survey.rejected
        more = f", {len(rejected)} that cannot be" if rejected else ""
        known = "" if self.sensitivity is None else ", with their sensitivity"
        return f"<Inspection of {self.model.name}: {len(layers)} layers can be INT8{more}{known}>"


def inspect_model(request: InspectRequest, listener: Listener) -> Inspection:
    """Survey a model for a target, and measure the sensitivity of its layers where there is data for that."""
    target = request.target
    reporter(listener, "opening the model")
    opened = request.open_model(request.model, target)
    looked_at = open_target(target, io=request.io, profile=request.profile, integer_only=request.integer_only)
    reporter(listener, f"lowering the model for {target}")
    lowered = looked_at.lowered(opened)
    fit = profile_fit(looked_at, lowered) if request.profile or request.integer_only else None
    survey = looked_at.survey(lowered, {}) if fit is None else fit.survey
    if request.calibration is None:
        return Inspection(lowered, survey, fit=fit)
    from autoquant.tuning.sensitivity.measure import measure_overview

    reporter(listener, "reading the data")
    most = calibration_samples(1, request.batch_size)
    data = open_dataset(request, opened, request.calibration, room=CacheRoom(), most=most)
    check_calibration(data)
    layers = {layer.name: layer for layer in survey.layers}
    calibrating = partial(progress, listener, "calibration")
    overview = measure_overview(
        opened,
        layers,
        data,
        batch_size=request.batch_size,
        on_calibration=calibrating,
        on_progress=partial(progress, listener, "sensitivity of layers"),
    )
    if target == TENSORFLOW:
        return Inspection(lowered, survey, overview, fit=fit)
    plan = Plan({name: layer_plan(layer) for name, layer in layers.items()})
    workload, engine = Workload.of(looked_at, lowered, data), open_engine(TARGETS[target].runtime)
    builder = builder_of_plan(
        plan,
        lowered,
        workload,
        looked_at,
        engine,
        data,
        batch_size=request.batch_size,
        on_progress=calibrating,
        on_between=partial(progress, listener, "operators between layers"),
    )
    return Inspection(lowered, survey, overview, builder.measure_between(plan), fit)
