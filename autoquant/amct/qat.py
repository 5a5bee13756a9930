"""convert_qat_model: a model that was trained for INT8 with FakeQuant operators becomes one of AMCT's operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.amct.arguments import output_names, output_path
from autoquant.amct.fake_quant import FAKE, fake_before, grid_of, without_fakes
from autoquant.amct.logs import log
from autoquant.amct.saving import CONVERTIBLE, RecordedModel, SavedModel, write_quantized
from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import ModelError
from autoquant.formats.record_text import save_record
from autoquant.model.graph import Graph
from autoquant.model.interface import select_interface
from autoquant.model.layer import Layer
from autoquant.model.layers import survey
from autoquant.model.load import load
from autoquant.model.model import Fusion
from autoquant.model.open import prepare_graph
from autoquant.quantization.weights import by_channel


def convert_qat_model(
    pb_model: str | Path,
    outputs: Sequence[str] | str,
    save_path: str | Path,
    record_file: str | Path | None = None,
    *,
    simulation: bool = True,
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

    Raises:
        ModelError: the file has no FakeQuant around a layer; a weight is not symmetric; more than 8 bits.
        TrialError: a bias exceeds INT32.
    """
    names = output_names(outputs)
    trained = select_interface(load(Path(pb_model)), outputs=names)
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
    saved = write_quantized(RecordedModel(graph, survey(graph).by_name, record), save_path, simulation=simulation)
    if record_file is not None:
        save_record(record, output_path(record_file))
    return saved


def _record(trained: Graph, graph: Graph) -> Record:
    """The trained scales of every layer that has them, in graph order."""
    record: dict[str, LayerRecord] = {}
    for layer in survey(graph).layers:
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
        return {name: graph.constant(layer.weight) for name, layer in survey(graph).by_name.items() if layer.weight}

    before = weights(prepare_graph(plain, outputs=outputs, fusion=Fusion(enabled=False)))
    after = weights(graph)
    return frozenset(name for name in record if not np.array_equal(before.get(name, ()), after.get(name, ())))
