"""save_model and convert_model: a frozen .pb and a record become `<save_path>_quantized.pb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from autoquant.amct.calibration import calibration_of, shown
from autoquant.amct.logs import log
from autoquant.amct.matching import Matched, check_weights, matched
from autoquant.amct.paths import output_path
from autoquant.amct.skeleton import unfinished
from autoquant.errors import PlanError, UsageError
from autoquant.formats.quant_json import quant_json_path
from autoquant.formats.record_text import load_record
from autoquant.model.names import node_of
from autoquant.model.nodes import sizes
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.study.trial import count_layers

CONVERTIBLE = ("AvgPool", "Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative", "MatMul")
"""Operators that convert_model and convert_qat_model take, as in AMCT."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The files that were written."""

    model: Path
    mapping: Path


def save_model(
    pb_model: str | Path,
    outputs: Sequence[str] | str,
    record_file: str | Path,
    save_path: str | Path,
    *,
    simulation: bool = True,
) -> Saved:
    """Write the INT8 model of a calibration, after the runs that `quantize_model` waits for.

    Args:
        pb_model: the frozen .pb from which the calibrated graph was imported.
        outputs: names of output tensors, or one text with ';' between them.
        record_file: what the calibration wrote.
        save_path: a prefix: writes `<save_path>_quantized.pb` and `<save_path>_quant.json`; its folder is made.
        simulation: whether the file holds the functions that let it run in stock TensorFlow.

    Raises:
        PlanError: the calibration is not finished, or the record is not that of this model.
        ModelError: the model cannot be opened, has no such output, or is quantized already.
        TrialError: what ended the calibration, if anything did; a bias that exceeds INT32.
    """
    path = Path(record_file)
    _check_finished(path)
    model = matched(Path(pb_model), output_names(outputs), load_record(path), path)
    check_weights(model, path)
    return write_quantized(model, save_path, simulation=simulation)


def convert_model(
    pb_model: str | Path,
    outputs: Sequence[str] | str,
    record_file: str | Path,
    save_path: str | Path,
    *,
    simulation: bool = True,
) -> Saved:
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
    model = matched(Path(pb_model), output_names(outputs), record, path)
    for name in model.record:
        _check_convertible(model, name, path)
    return write_quantized(model, save_path, simulation=simulation)


def output_names(outputs: Sequence[str] | str) -> tuple[str, ...]:
    """Names of output tensors from a list, or from one text with ';' between them.

    Raises UsageError for none, and for what is not a name.
    """
    names = outputs.split(";") if isinstance(outputs, str) else outputs
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        what = f"expected names of tensors, got {shorten(repr(outputs), 100)}"
        raise UsageError("outputs", what, hint='give a list of texts, such as ["logits:0"]')
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise UsageError("outputs", "no output is named", hint='give names of tensors, such as ["logits:0"]')
    return found


def write_quantized(model: Matched, save_path: str | Path, *, simulation: bool) -> Saved:
    """Write a model in INT8 and the map of its nodes; `save_path` is a prefix, whose folder is made."""
    if not Path(save_path).name or str(save_path).endswith(("/", "\\")):
        raise UsageError("save_path", f"'{save_path}' names a folder", hint="give a prefix, such as outputs/mobilenet")
    target = TensorFlowTarget(simulation=simulation)
    path = output_path(Path(save_path).with_name(target.file_name(Path(save_path).name)))
    target.save(model.graph, model.layers, model.record, path)
    log().info("%d layers are in INT8: %s", count_layers(model.record), path)
    return Saved(path, quant_json_path(path))


def _check_finished(path: Path) -> None:
    """Raise what ended the calibration of this record, or PlanError where a layer still waits for passes."""
    calibration = calibration_of(path)
    if calibration is not None and calibration.error is not None:
        raise calibration.error
    try:
        waiting = unfinished(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return  # reading the record tells why
    if not waiting and calibration is not None and (missing := calibration.progress()):
        log().warning("%s is of the calibration before the one that waits for %s", path, missing)
    if waiting:
        told = shown(waiting) if calibration is None else calibration.progress()
        what = f"no layers to be quantized, please ensure calibration is finished: waiting for {told}"
        runs = "run outputs that depend on these layers batch_num times, in one session made after quantize_model"
        runs += " in which variables are initialized once"
        raise PlanError(str(path), what, hint=f"{runs}, or set their quant_enable to false")


def _check_convertible(model: Matched, name: str, path: Path) -> None:
    layer = model.layers.get(name)
    op = model.graph.nodes[node_of(name)].op
    if layer is None or op not in CONVERTIBLE:
        what = f"layer type {op} is not supported by convert_model"
        raise PlanError(f"{path}: {name}", what, hint=f"remove its record; supported are {', '.join(CONVERTIBLE)}")
    dilation = max(sizes(model.graph.nodes[name], "dilations"), default=1)
    if op == "DepthwiseConv2dNative" and dilation > 1:
        what = f"its dilation is {dilation}; convert_model takes depthwise convolutions of dilation 1 only"
        raise PlanError(f"{path}: {name}", what, hint="remove its record")
