"""A record and the frozen .pb that it is of, brought together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoquant.amct.calibration import shown
from autoquant.amct.logs import log
from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import PlanError, did_you_mean
from autoquant.model.fusion import Fusion
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer, Survey
from autoquant.model.layers import survey
from autoquant.model.load import load
from autoquant.model.names import canonical, node_of
from autoquant.model.opening import prepared
from autoquant.quantization.affine import Array
from autoquant.quantization.balance import balanced_weight
from autoquant.quantization.weights import weight_scales

CLOSE = 1e-4
"""Relative error of scales that count as the same."""


@dataclass(frozen=True)
class Matched:
    """A model opened as a record was made for it, its layers, and what of the record its outputs depend on."""

    graph: Graph
    layers: Mapping[str, Layer]
    record: Record


def matched(pb_model: Path, outputs: Sequence[str], record: Record, where: Path) -> Matched:
    """Open the model of a record, which was read from `where`.

    Layers that the outputs do not depend on are left out, with a warning. Raises ModelError as `open_model`, and
    PlanError where the record names what the model does not have, or what cannot be quantized.
    """
    loaded = load(pb_model)
    for name in record:
        if node_of(name) not in loaded.nodes:
            near = did_you_mean(name, loaded.nodes, otherwise="please match the model and the record")
            raise PlanError(f"{where}: {name}", f"find {name} failure in {pb_model}", hint=near)
    apart = frozenset(name for name, entry in record.items() if entry.skip_fusion)
    graph = prepared(loaded, outputs=outputs, fusion=Fusion(skip=apart))
    found = survey(graph)
    needed = loaded.ancestors(*map(canonical, outputs))
    kept = {name: entry for name, entry in record.items() if node_of(name) in needed}
    if not kept:
        raise PlanError(str(where), "the outputs depend on none of its layers", hint="give the outputs of the model")
    if len(kept) < len(record):
        log().warning("left out, as the outputs do not depend on it: %s", shown(sorted(record.keys() - kept.keys())))
    known = {key for layer in found.by_name.values() for key in layer.records}
    for name in kept.keys() - known:
        raise _not_a_layer(found, name, where)
    return Matched(graph, found.by_name, kept)


def check_weights(model: Matched, where: Path) -> None:
    """Raise PlanError where a weight's scales are not those that calibration gives the weights of this model."""
    for name, entry in model.record.items():
        layer = model.layers.get(name)
        weight = model.graph.constant(layer.weight) if layer is not None and layer.weight else None
        if layer is None or weight is None or not entry.scale_w:
            continue
        if entry.balance:
            weight = balanced_weight(weight, np.array(entry.balance), layer.operator.input_axis)
        if not any(_given(layer, weight, entry, algorithm) for algorithm in layer.can.weight_algorithms):
            what = "its scale_w is not what calibration gives the weight of this model"
            hint = (
                "calibrate this model with these outputs (calib_outputs), or use convert_model for scales of your own"
            )
            raise PlanError(f"{where}: {name}", what, hint=hint)


def _given(layer: Layer, weight: Array, entry: LayerRecord, algorithm: str) -> bool:
    """Whether an algorithm gives a weight the scales of a record."""
    axes = layer.channel_axes if len(entry.scale_w) > 1 else None
    scales = weight_scales(layer.name, weight, axes, bits=entry.weight_bits, algorithm=algorithm)
    return scales.size == len(entry.scale_w) and np.allclose(scales, entry.scale_w, rtol=CLOSE, atol=0.0)


def _not_a_layer(found: Survey, name: str, where: Path) -> PlanError:
    reason = next((f": {one.reason}" for one in found.rejected if one.name == node_of(name)), "")
    hint = did_you_mean(name, found.by_name, otherwise="`autoquant inspect` lists the layers")
    return PlanError(
        f"{where}: {name}", f"layer {name} cannot be quantized{reason}", hint="remove its record" if reason else hint
    )
