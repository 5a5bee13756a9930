"""convert_qat_model: a model that was trained for INT8 with FakeQuant operators becomes one of AMCT's operators.

The grids of its FakeQuants are read from the graph, and the graph goes on without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.amct.arguments import Names, output_names, output_path
from autoquant.amct.logs import log
from autoquant.amct.saving import CONVERTIBLE, RecordedModel, SavedModel, write_quantized
from autoquant.array import Array
from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import ModelError
from autoquant.formats.record_text import save_record
from autoquant.model.fake_quants import FAKE, without_fakes
from autoquant.model.feed import Feed
from autoquant.model.graph import Graph
from autoquant.model.interface import select_interface
from autoquant.model.layer import Layer
from autoquant.model.load import load
from autoquant.model.model import Fusion
from autoquant.model.nodes import attr_of
from autoquant.model.open import prepare_graph
from autoquant.model.operators import node_of
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import EPSILON, QMIN, Affine, by_channel

WITH_RANGES = frozenset({"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"})
KEEPING = frozenset({"ExpandDims", "Identity", "MaxPool", "Pad", "Reshape", "Squeeze", "StopGradient", "Transpose"})
"""Operators whose results are values of their first input, or 0: what was on a grid still is."""
BITS = 8


def convert_qat_model(
    pb_model: str | Path,
    outputs: Names | str,
    save_path: str | Path,
    record_file: str | Path | None = None,
    *,
    simulation: bool = True,
    feed: Feed = (),
    trust_model: bool = False,
) -> SavedModel:
    """Replace the FakeQuants of a trained, frozen .pb by INT8 layers with the scales that were trained.

    A layer becomes INT8 where its input comes from a FakeQuantWithMinMaxVars or -Args, and its weight from one of those
    or from a FakeQuantWithMinMaxVarsPerChannel. All FakeQuants are removed, those that no layer reads as well. Where a
    batch norm behind a layer would change its weights, it is not fused (`skip_fusion`): they were trained as they are.

    Args:
        pb_model: the frozen .pb, in inference mode.
        outputs: names of output tensors, or one text with ';' between them.
        save_path: a prefix: writes `<save_path>_quantized.pb` and `<save_path>_quant.json`.
        record_file: where the scales are written too, for `convert_model`; None writes none.
        simulation: whether the model can run in stock TensorFlow.
        feed: values of placeholders that are no data, such as is_training.
        trust_model: whether to open a model that may do more than compute.

    Raises:
        ModelError: the file has no FakeQuant around a layer; a weight is not symmetric; more than 8 bits.
        TrialError: a bias exceeds INT32.
    """
    names = output_names(outputs)
    trained = select_interface(load(Path(pb_model), feed, trust=trust_model), outputs=names)
    if not any(node.op in FAKE for node in trained.nodes.values()):
        what = "has no FakeQuant operator: it was not trained for INT8"
        raise ModelError(str(pb_model), what, hint="calibrate it: create_quant_config, quantize_model, save_model")
    plain = without_fakes(trained)
    graph = prepare_graph(plain, outputs=names)
    record = _record(trained, graph)
    changed = _changed(plain, graph, names, record)
    if changed:
        graph = prepare_graph(plain, outputs=names, fusion=Fusion(skip=changed))
        record = {name: replace(one, skip_fusion=name in changed) for name, one in record.items()}
    saved = write_quantized(RecordedModel(graph, survey_graph(graph).by_name, record), save_path, simulation=simulation)
    if record_file is not None:
        save_record(record, output_path(record_file))
    return saved


def _record(trained: Graph, graph: Graph) -> Record:
    """The trained scales of every layer that has them, in graph order."""
    record: dict[str, LayerRecord] = {}
    for layer in survey_graph(graph).layers:
        node = trained.nodes.get(layer.name)
        if node is None or layer.op not in CONVERTIBLE:
            continue
        data = fake_before(trained, node.input[layer.operator.data])
        weight = fake_before(trained, node.input[layer.operator.weight or 0]) if layer.weight else None
        if data is not None and (weight is not None or not layer.weight):
            activation = grid_of(trained, data).activation(data.name)
            record[layer.name] = LayerRecord(activation, _scales(trained, layer, weight) if layer.weight else ())
        elif data is not None or weight is not None:
            missing = "its input" if data is None else "its weight"
            log().warning("%s stays in float: %s comes from no FakeQuant", layer.name, missing)
    if not record:
        what = "no layer has a FakeQuant before its input and its weight"
        raise ModelError("graph", what, hint="is the FakeQuant right before Conv2D, MatMul, and their weights?")
    return record


def _scales(trained: Graph, layer: Layer, fake: Any) -> tuple[float, ...]:
    """One scale of the weight, or one for each output channel. Raises ModelError where they are along another axis."""
    scales, per_channel = grid_of(trained, fake).weight(fake.name), layer.can.per_channel
    if scales.size == 1:
        return tuple(map(float, scales))
    if scales.size == layer.weight_shape[-1]:
        rows = by_channel(np.broadcast_to(scales, layer.weight_shape), layer.channel_axes)
        if (rows == rows[:, :1]).all() and (per_channel or (rows == rows[0, 0]).all()):
            return tuple(map(float, rows[:, 0] if per_channel else rows[0, :1]))
    what = f"quantizes the weight of '{layer.name}' ({layer.op}) with {scales.size} ranges"
    hint = "train again with one range for each output channel" if per_channel else "train again with one range"
    raise ModelError(fake.name, what, hint=f"{hint} (FakeQuantWithMinMaxVars has one)")


def _changed(plain: Graph, graph: Graph, outputs: Sequence[str], record: Record) -> frozenset[str]:
    """The layers of the record whose weights a fusion has changed."""

    def weights(graph: Graph) -> Mapping[str, Any]:
        return {
            name: graph.constant(layer.weight) for name, layer in survey_graph(graph).by_name.items() if layer.weight
        }

    before = weights(prepare_graph(plain, outputs=outputs, fusion=Fusion(enabled=False)))
    after = weights(graph)
    return frozenset(name for name in record if not np.array_equal(before.get(name, ()), after.get(name, ())))


@dataclass(frozen=True, slots=True)
class Grid:
    """What a FakeQuant rounds to: (q - offset) * scale with q in -128..127, or -127..127 where it is `narrow`.

    `scales` float32 and `offsets` int64 are vectors of one value, or one for each index of the last axis.
    """

    scales: Array
    offsets: Array
    narrow: bool

    def activation(self, node: str) -> Affine:
        """The one scale and offset of an activation. Raises ModelError where INT8 does not have such a grid."""
        if self.scales.size != 1 or self.narrow:
            what = "is narrow_range" if self.narrow else "has a range for every channel"
            raise ModelError(node, f"{what}, which is for weights", hint="train again with FakeQuantWithMinMaxVars")
        try:
            return Affine(float(self.scales[0]), int(self.offsets[0]))
        except ValueError as error:
            raise ModelError(node, str(error), hint="train again, or remove the FakeQuant") from None

    def weight(self, node: str) -> Array:
        """The scales of a weight. Raises ModelError where its grid is not symmetric.

        The zero point of min = -max falls between two steps where it is not narrow, and nudging takes either: offset 0,
        or -1, whose steps are the same ones, of which INT8 lacks the uppermost.
        """
        wrong = self.offsets[(self.offsets != 0) & ((self.offsets != -1) | self.narrow)]
        if wrong.size:
            what = f"quantizes a weight with offset {wrong[0]}, not 0"
            raise ModelError(node, what, hint="train again with symmetric ranges of weights, min = -max")
        return self.scales


def nudged(low: Array, high: Array, *, narrow: bool) -> Grid:
    """The grid of ranges [low, high], vectors, as TensorFlow nudges them so that 0 is on it.

    scale = (high - low) / (quant_max - quant_min); the zero point is quant_min - low / scale, rounded and kept within
    quant_min..quant_max, with quant_max 255 and quant_min 0, or 1 where it is narrow (documentation of
    FakeQuantWithMinMaxVars; ties away from zero, in float32, as its kernel has it). A range of nothing has scale 1.

    >>> nudged(np.float32([-1.0]), np.float32([1.0]), narrow=True).offsets
    array([0])
    """
    least, most = np.float32(narrow), np.float32(2**BITS - 1)
    scales = (np.asarray(high, np.float32) - np.asarray(low, np.float32)) / (most - least)
    empty = scales < EPSILON
    scales = np.where(empty, np.float32(1.0), scales)
    zero = np.clip(np.floor(least - np.asarray(low, np.float32) / scales + np.float32(0.5)), least, most)
    return Grid(scales, np.where(empty, 0, zero.astype(np.int64) + QMIN), narrow)


def grid_of(graph: Graph, node: Any) -> Grid:
    """The grid of a FakeQuant. Raises ModelError for other than 8 bits, and for ranges that are not constant."""
    bits = attr_of(node, "num_bits").i or BITS
    if bits != BITS:
        raise ModelError(node.name, f"has num_bits {bits}, not {BITS}", hint=f"train again with num_bits={BITS}")
    narrow = attr_of(node, "narrow_range").b
    if node.op in WITH_RANGES:
        low, high = (np.atleast_1d(_constant(graph, node, edge)) for edge in node.input[1:3])
    else:  # what a file leaves out is the operator's default
        low, high = (
            np.array([node.attr[key].f if key in node.attr else default]) for key, default in (("min", -6), ("max", 6))
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ModelError(node.name, "its min is above its max, or not finite", hint="train again, or remove it")
    return nudged(low, high, narrow=narrow)


def fake_before(graph: Graph, tensor: str) -> Any | None:
    """The FakeQuant on whose grid the values of a tensor are; None where there is none."""
    node = graph.nodes[node_of(tensor)]
    while node.op in KEEPING:
        node = graph.nodes[node_of(node.input[0])]
    return node if node.op in FAKE else None


def _constant(graph: Graph, fake: Any, tensor: str) -> Array:
    """The value of a tensor that a Const makes, directly or through Identity."""
    node = graph.nodes[node_of(tensor)]
    while node.op == "Identity":
        node = graph.nodes[node_of(node.input[0])]
    value = graph.constant(node.name)
    if value is None:
        raise ModelError(fake.name, f"its range '{tensor}' is not constant", hint="freeze the graph after training")
    return value
