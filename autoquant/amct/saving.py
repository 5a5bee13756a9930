"""save_model and convert_model: a frozen .pb and a record become `<save_path>_quantized.pb`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoquant.amct.arguments import Names, output_names, output_path, save_prefix
from autoquant.amct.calibration import calibration_of, empty_entries
from autoquant.amct.logs import log
from autoquant.array import Array
from autoquant.calibration.record import LayerRecord, Record, float_weight
from autoquant.errors import PlanError, did_you_mean, listed
from autoquant.formats.quant_json import quant_json_path
from autoquant.formats.record_text import load_record
from autoquant.model.feed import Feed
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.load import load
from autoquant.model.model import Fusion
from autoquant.model.nodes import sizes
from autoquant.model.open import prepare_graph
from autoquant.model.operators import canonical, node_of, prefix_of
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import weight_scales
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.study.trial import count_layers

T = TypeVar("T")
CONVERTIBLE = ("AvgPool", "Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative", "MatMul")
"""Operators that convert_model and convert_qat_model take, as in AMCT."""
CLOSE = 1e-4
"""Relative error of scales that count as the same."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """The files that were written."""

    model: Path
    mapping: Path


@dataclass(frozen=True)
class RecordedModel:
    """A model opened as a record was made for it, its layers, and what of the record its outputs depend on."""

    graph: Graph
    layers: Mapping[str, Layer]
    record: Record


def save_model(
    pb_model: str | Path,
    outputs: Names | str,
    record_file: str | Path,
    save_path: str | Path,
    *,
    simulation: bool = True,
    feed: Feed = (),
) -> SavedModel:
    """Write the INT8 model of a calibration, after the runs that `quantize_model` waits for.

    Args:
        pb_model: the frozen .pb from which the calibrated graph was imported.
        outputs: names of output tensors, or one text with ';' between them.
        record_file: what the calibration wrote.
        save_path: a prefix: writes `<save_path>_quantized.pb` and `<save_path>_quant.json`; its folder is made.
        simulation: whether the file holds the functions that let it run in stock TensorFlow.
        feed: values of placeholders that are no data, such as is_training, with which the file was opened.

    Raises:
        PlanError: the calibration is not finished, or the record is not that of this model.
        ModelError: the model cannot be opened, has no such output, or is quantized already.
        TrialError: what ended the calibration, if anything did; a bias that exceeds INT32.
    """
    path = Path(record_file)
    _check_finished(path)
    # The calibrated graph, frozen as it is, has the PyFuncs of its calibration, which are left out.
    model = open_recorded(Path(pb_model), output_names(outputs), load_record(path), path, feed, trust=True)
    _check_weights(model, path)
    return write_quantized(model, save_path, simulation=simulation)


def convert_model(
    pb_model: str | Path,
    outputs: Names | str,
    record_file: str | Path,
    save_path: str | Path,
    *,
    simulation: bool = True,
) -> SavedModel:
    """Write the INT8 model of a record that the user made, with scales of his own.

    Arguments are those of `save_model`. Layers are of the types in CONVERTIBLE, without dilation where they are
    depthwise. Raises PlanError for others, for shift_bit, and for a record that is not of this model; ModelError and
    TrialError as `save_model`.
    """
    path = Path(record_file)
    record = load_record(path)
    for name, entry in record.items():
        if entry.shift_bit:
            what = f"shift_bit is not support, please delete shift_bit of layer {name}"
            raise PlanError(str(path), what, hint="scales of your own are used without it")
    model = open_recorded(Path(pb_model), output_names(outputs), record, path)
    for name in model.record:
        _check_convertible(model, name, path)
    return write_quantized(model, save_path, simulation=simulation)


def open_recorded(
    pb_model: Path, outputs: Sequence[str], record: Record, where: Path, feed: Feed = (), *, trust: bool = False
) -> RecordedModel:
    """Open the model of a record, which was read from `where`.

    Both the record and the outputs may have names of a graph into which it was imported under a prefix. Layers that the
    outputs do not depend on are left out, with a warning. Raises ModelError as `open_model`, and PlanError where the
    record names what the model does not have, or what cannot be quantized.
    """
    loaded = load(pb_model, feed, trust=trust)
    record = _without_prefix(record, loaded.nodes)
    outputs = tuple(_without_prefix(dict.fromkeys(outputs), loaded.nodes))
    for name in record:
        if node_of(name) not in loaded.nodes:
            near = did_you_mean(name, loaded.nodes, otherwise="please match the model and the record")
            raise PlanError(f"{where}: {name}", f"find {name} failure in {pb_model}", hint=near)
    unfused = frozenset(name for name, entry in record.items() if entry.skip_fusion)
    graph = prepare_graph(loaded, outputs=outputs, fusion=Fusion(skip=unfused))
    found = survey_graph(graph)
    ancestors = loaded.ancestors(*map(canonical, outputs))
    needed = {name: entry for name, entry in record.items() if node_of(name) in ancestors}
    if not needed:
        raise PlanError(str(where), "the outputs depend on none of its layers", hint="give the outputs of the model")
    if len(needed) < len(record):
        log().warning("left out, as the outputs do not depend on it: %s", listed(sorted(record.keys() - needed.keys())))
    for name in needed.keys() - {key for layer in found.by_name.values() for key in layer.records}:
        reason = next((f": {one.reason}" for one in found.rejected if one.name == node_of(name)), "")
        near = did_you_mean(name, found.by_name, otherwise="`autoquant inspect` lists the layers")
        hint = "remove its record" if reason else near
        raise PlanError(f"{where}: {name}", f"layer {name} cannot be quantized{reason}", hint=hint)
    return RecordedModel(graph, found.by_name, needed)


def _without_prefix(named: Mapping[str, T], nodes: Collection[str]) -> dict[str, T]:
    prefix = prefix_of(named, nodes)
    return {name.removeprefix(prefix): value for name, value in named.items()}


def write_quantized(model: RecordedModel, save_path: str | Path, *, simulation: bool) -> SavedModel:
    """Write a model in INT8 and the map of its nodes; `save_path` is a prefix, whose folder is made."""
    prefix, target = save_prefix(save_path), TensorFlowTarget(simulation=simulation)
    path = output_path(prefix.with_name(target.file_name(prefix.name)))
    target.save(model.graph, model.layers, model.record, path)
    log().info("%d layers are in INT8: %s", count_layers(model.record), path)
    return SavedModel(path, quant_json_path(path))


def _check_finished(path: Path) -> None:
    """Raise what ended the calibration of this record, or PlanError where a layer still waits for passes."""
    calibration = calibration_of(path)
    if calibration is not None:
        calibration.probes.raise_error()
    try:
        waiting = empty_entries(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return  # reading the record tells why
    if not waiting and calibration is not None and (missing := calibration.progress()):
        log().warning("%s is of the calibration before the one that waits for %s", path, missing)
    if waiting:
        names = listed(waiting) if calibration is None else calibration.progress()
        what = f"no layers to be quantized, please ensure calibration is finished: waiting for {names}"
        runs = "run outputs that depend on these layers batch_num times, in one session made after quantize_model"
        once = "in which variables are initialized once"
        raise PlanError(str(path), what, hint=f"{runs} {once}, or set their quant_enable to false")


def _check_convertible(model: RecordedModel, name: str, path: Path) -> None:
    layer = model.layers.get(name)
    op = model.graph.nodes[node_of(name)].op
    if layer is None or op not in CONVERTIBLE:
        what = f"layer type {op} is not supported by convert_model"
        raise PlanError(f"{path}: {name}", what, hint=f"remove its record; supported are {', '.join(CONVERTIBLE)}")
    dilation = max(sizes(model.graph.nodes[name], "dilations"), default=1)
    if op == "DepthwiseConv2dNative" and dilation > 1:
        what = f"its dilation is {dilation}; convert_model takes depthwise convolutions of dilation 1 only"
        raise PlanError(f"{path}: {name}", what, hint="remove its record")


def _check_weights(model: RecordedModel, where: Path) -> None:
    """Raise PlanError where a weight's scales are not those that calibration gives the weights of this model."""
    for name, entry in model.record.items():
        layer = model.layers.get(name)
        if layer is None or layer.weight is None or not entry.scale_w:
            continue
        weight = float_weight(model.graph, layer, entry.balance)
        if not any(_has_scales(layer, weight, entry, algorithm) for algorithm in layer.can.weight_algorithms):
            what = "its scale_w is not what calibration gives the weight of this model"
            way_out = "calibrate this model with these outputs (calib_outputs)"
            raise PlanError(f"{where}: {name}", what, hint=f"{way_out}, or use convert_model for scales of your own")


def _has_scales(layer: Layer, weight: Array, entry: LayerRecord, algorithm: str) -> bool:
    """Whether an algorithm gives a weight the scales of a record."""
    axes = layer.channel_axes if len(entry.scale_w) > 1 else None
    scales = weight_scales(layer.name, weight, axes, bits=entry.weight_bits, algorithm=algorithm)
    return scales.size == len(entry.scale_w) and np.allclose(scales, entry.scale_w, rtol=CLOSE, atol=0.0)
