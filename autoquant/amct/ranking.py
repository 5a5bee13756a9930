"""How much INT8 changes each layer by itself: in a live graph, a float and an INT8 copy of it are compared.

Both copies read what the layer reads, so that what other layers do to it is left out, and no other layer is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from autoquant.amct.evaluator import Judge
from autoquant.amct.live_graph import LiveModel, Probes
from autoquant.amct.logs import log
from autoquant.array import Array
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Calibrator, Record
from autoquant.errors import DataError, TrialError
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.operators import node_of
from autoquant.model.shapes import imported, make_placeholder, tensor_name
from autoquant.targets.tensorflow import quantized

PREFIX = "autoquant_ranking"


@dataclass
class Scores:
    """What `sensitivity` says of each layer, batch by batch; only the first `batch_num` batches count."""

    sensitivity: Any
    batch_num: int
    by_layer: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, original: Array, fakequant: Array) -> None:
        """Compare what the copies of a layer give for one batch. Raises DataError where the measure gives no number."""
        scores = self.by_layer.setdefault(name, [])
        if len(scores) == self.batch_num:
            return
        score = float(self.sensitivity.compare(original, fakequant))
        if not math.isfinite(score):
            what = f"the sensitivity of its output is {score}, which cannot be ranked"
            raise DataError(name, what, hint="compare() must return a finite number")
        scores.append(score if getattr(self.sensitivity, "higher_is_better", True) else -score)

    def mean(self, name: str) -> float:
        """The mean score of a layer. Raises DataError where it has not run in all batches."""
        scores = self.by_layer.get(name, [])
        if len(scores) < self.batch_num:
            what = f"ran {name} in {len(scores)} of {self.batch_num} batches when it was called again"
            raise DataError("evaluator.calibration()", what, hint="it must run the same outputs each time")
        return math.fsum(scores) / len(scores)


def rank(model: LiveModel, plan: Plan, calibrator: Calibrator, judge: Judge, sensitivity: Any) -> dict[str, float]:
    """The INT8 layers of a plan and their scores, the worst first: the larger, the less INT8 changes the layer.

    Numbers of a measure that goes the other way are negated. A layer that cannot be INT8 at all has minus infinity;
    raises the first TrialError where that is each of them, and whatever the evaluator and the measure raise.
    """
    graph, probes, scores = imported(model.graph), Probes(), Scores(sensitivity, plan.batch_num)
    impossible: dict[str, TrialError] = {}
    for name, settings in plan.int8.items():
        layer = model.survey.by_name[name]
        try:
            record = calibrator.record(replace(plan, layers={name: settings}))
            outputs = _add_copies(graph, model.graph, layer, record)
        except TrialError as error:
            log().warning("%s stays in float: %s", name, error)
            impossible[name] = error
            continue
        probes.attach(graph, layer.node, outputs, partial(scores.add, name), name=f"{_place(name)}/compare")
    if len(impossible) == len(plan.int8):
        raise next(iter(impossible.values()))
    judge.calibrate(graph, probes)
    found = {name: -math.inf if name in impossible else scores.mean(name) for name in plan.int8}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def ranking_text(ranking: Mapping[str, float]) -> str:
    """accuracy_based_auto_calibration_ranking_information.json: a list of [layer, score], the worst first.

    The score of a layer that cannot be INT8 at all is null.
    """
    entries = [[name, score if math.isfinite(score) else None] for name, score in ranking.items()]
    return json.dumps(entries, indent=2, allow_nan=False) + "\n"


def _add_copies(tf_graph: Any, graph: Graph, layer: Layer, record: Record) -> list[Any]:
    """The outputs of a float and an INT8 copy of a layer, which are put into a tf.Graph of `graph`.

    Raises TrialError where the layer cannot be quantized with its record.
    """
    edges = [edge for edge in graph.nodes[layer.node].input if graph.nodes[node_of(edge)].op != "Const"]
    names = {edge: f"{PREFIX}_{number}" for number, edge in enumerate(dict.fromkeys(edges))}
    read = {name: tf_graph.get_tensor_by_name(tensor_name(edge)) for edge, name in names.items()}
    placeholders = [make_placeholder(name, tensor.dtype.as_datatype_enum, None) for name, tensor in read.items()]
    alone = graph.edit(put=placeholders, redirect=names)
    alone = replace(alone, inputs=tuple(read), outputs=(layer.bias or layer.node,)).pruned()
    inside = replace(layer, activations=tuple(names[edge] for edge in layer.activations))
    copies = {"float": alone, "int8": quantized(alone, {layer.name: inside}, record)}
    return [_import(tf_graph, copy, read, f"{_place(layer.name)}/{kind}") for kind, copy in copies.items()]


def _import(tf_graph: Any, copy: Graph, read: Mapping[str, Any], place: str) -> Any:
    """The output of a graph, brought into a tf.Graph, of which it reads tensors instead of its Placeholders."""
    import tensorflow as tf

    graph_def = copy.to_graph_def()
    nodes = [node for node in graph_def.node if node.name not in read]
    del graph_def.node[:]
    graph_def.node.extend(nodes)
    with tf_graph.as_default():
        (output,) = tf.graph_util.import_graph_def(graph_def, dict(read), [tensor_name(copy.outputs[0])], name=place)
    return output


def _place(name: str) -> str:
    return f"{PREFIX}/{name.replace(':', '_')}"
