"""What a search is asked for, opened and checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.array import Array
from autoquant.cache import digest_of
from autoquant.errors import DataError, ModelError, TrialError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.data.splits import CALIBRATION_SAMPLES, DataSplits, split_calibration
from autoquant.evaluation.data.units import units_of
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.metric import Metric, require_labels, require_output
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.passes import batches_in
from autoquant.formats.space_toml import SpaceFile
from autoquant.model.feed import feed_hint
from autoquant.model.model import Front, Model
from autoquant.quiet import no_progress
from autoquant.targets.base import Target
from autoquant.targets.table import open_target
from autoquant.tuning.certification.holdout import check_guard
from autoquant.tuning.events import Listener, Warned, reporter
from autoquant.tuning.study.choices import TENSORFLOW
from autoquant.tuning.study.model_request import DataRequest
from autoquant.tuning.study.places import NOTHING
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.space import SearchSpace
from autoquant.tuning.study.workload import Workload


@dataclass(frozen=True)
class Inputs:
    """What a request names, opened and checked, before anything is computed.

    `source` is the model as it was given, `model` in the form that the target lowered.
    """

    request: SearchRequest
    target: Target
    source: Model
    model: Model
    splits: DataSplits
    workload: Workload
    space: SearchSpace
    space_file: SpaceFile
    metric: Metric

    @property
    def cached(self) -> int:
        """Bytes of the samples of functions, which are cached."""
        splits = self.splits
        found = {data.source for data in (splits.calibration, splits.evaluation, splits.holdout) if data is not None}
        return sum(source.cached or 0 for source in found if isinstance(source, FunctionSource))

    def digests(self) -> Mapping[str, str]:
        """What must be the same when the run goes on."""
        return {
            "model": self.model.digest,
            "data": self.splits.evaluation.digest,
            "calibration": self.splits.calibration.digest,
            "metric": digest_of(self.metric.key),
        }


def model_of(request: SearchRequest) -> Model:
    """The model of a request, as the file has it, but for what its target cannot run in front. Raises ModelError."""
    return request.open_model(request.model, request.target)


def open_inputs(
    request: SearchRequest,
    space_file: SpaceFile,
    model: Model,
    listener: Listener = no_progress,
    *,
    folder: Path | None = None,
) -> Inputs:
    """Open all of a request but its model, which is open; the listener is told what takes long.

    Samples are cached on the disk of `folder`. Raises InputError.
    """
    metric = open_metric(request.metric)
    require_output(metric, model.program.outputs)
    certify = None if request.certify == NOTHING else request.certify
    reporter(listener, "reading the data")
    warn = partial(_warn, listener)
    room = CacheRoom(folder, request.cache) if request.cache else None
    batches = max(space_file.whole["batch_num"])
    options: dict[str, Any] = {"warn": warn, "room": room, "batches": batches}
    splits = open_splits(request, model, seed=request.seed, unit=request.unit, certify=certify, **options)
    for data in (splits.evaluation, splits.holdout):
        if data is not None:
            units_of(data, request.unit)  # so that a name mistaken is told before a search
    require_labels(metric, splits.evaluation)
    if not request.allow_overlap:
        splits = splits.disjoint()
    if request.guard:
        check_guard(splits.holdout or splits.evaluation, request.guard, metric)
    target = open_target(request.target, io=request.io, profile=request.profile, integer_only=request.integer_only)
    reporter(listener, f"lowering the model for {target.name}")
    source, model = model, target.lowered(model)
    workload = Workload.of(target, model, splits.evaluation)
    batches = batches_in(splits.calibration, request.batch_size)
    space_file = _without_training(space_file, model, warn)
    space = SearchSpace(space_file, list(workload.layers.values()), batches=batches)
    return Inputs(request, target, source, model, splits, workload, space, space_file, metric)


def _without_training(space_file: SpaceFile, model: Model, warn: Callable[[str], None]) -> SpaceFile:
    """The file itself, or one that offers no training where this model cannot be trained, which is told."""
    if True not in space_file.whole["training"]:
        return space_file
    from autoquant.tuning.repairs.training.trainer import NO_GRADIENT, without_gradient

    if not (kind := without_gradient(model.program)):
        return space_file
    warn(f"training is left out: {NO_GRADIENT} ({kind})")
    return replace(space_file, whole=MappingProxyType({**space_file.whole, "training": (False,)}))


def _warn(listener: Listener, text: str) -> None:
    listener(Warned(text))


def open_splits(
    request: DataRequest,
    model: Model,
    *,
    seed: int,
    unit: str = "",
    certify: Any = None,
    warn: Callable[[str], None] = no_progress,
    room: CacheRoom | None = None,
    batches: int | None = None,
) -> DataSplits:
    """Open the data of a request, and a holdout where `certify` gives data for it.

    There is `room` for samples that would be read anew for every pass. `batches` of the calibration data are wanted at
    most.

    Without `calibration` of its own some is split off, drawn by the seed, and nothing of the same content, or of the
    same `unit`, is left in the evaluation data.
    """
    evaluation = open_dataset(request, model, request.data, warn, room)
    holdout = None if certify is None else open_dataset(request, model, certify, warn, room)
    if request.calibration is not None:
        most = None if batches is None else calibration_samples(batches, request.batch_size)
        calibration = open_dataset(request, model, request.calibration, warn, room, most)
        splits = DataSplits.of(evaluation, calibration, holdout, unit)
    else:
        splits = split_calibration(evaluation, seed, holdout, unit)
    return replace(splits, calibration=splits.calibration.loaded())


def calibration_samples(batches: int, batch_size: int) -> int:
    """How many calibration samples are wanted at most, where ranges want so many batches; sensitivity wants a few too.

    >>> calibration_samples(16, 50), calibration_samples(1, 50)
    (800, 550)
    """
    return max(batches, math.ceil(CALIBRATION_SAMPLES / batch_size)) * batch_size


def open_dataset(
    request: DataRequest,
    model: Model,
    spec: Any,
    warn: Callable[[str], None] = no_progress,
    room: CacheRoom | None = None,
    most: int | None = None,
) -> Dataset:
    """Open evaluation or calibration data as the request says; what is in front of the model makes its inputs of it.

    `room` and `most` are as of `open_data`. Raises ModelError where no data can be fed.
    """
    for one in model.data_inputs:
        if one.is_single_value:
            what = f"this input takes a single value ({one.dtype.name}), which is no data"
            raise ModelError(one.name, what, hint=feed_hint(one.name, one.dtype))
    return open_data(
        spec,
        model.data_inputs,
        preprocess=open_preprocess(request.preprocess, scale=request.scale, mean=request.mean, std=request.std),
        label_offset=request.label_offset,
        image_size=request.image_size,
        front=None if model.front is None else front_runner(model.front, model),
        warn=warn,
        room=room,
        most=most,
        ordered=model.ordered,
    )


def front_runner(front: Front, model: Model) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    """Runs what is in front of a model, in TensorFlow."""
    runner = open_engine(TENSORFLOW).open_graph(front.graph)

    def run(data: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            found = {**data, **runner(data)}
        except TrialError as error:
            raise DataError("the part in front of the layers", error.what, hint=error.hint) from error
        samples = len(next(iter(data.values())))
        for spec in model.inputs:
            if found[spec.name].shape[:1] != (samples,):
                what = f"has shape {found[spec.name].shape} for {samples} samples; its first axis must be the batch"
                hint = "cut the model behind it with --inputs, or choose --target tensorflow"
                raise ModelError(spec.name, what, hint=hint)
        return {spec.name: found[spec.name] for spec in model.inputs}

    return run
