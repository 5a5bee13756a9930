"""How much each layer suffers from INT8 alone: a float and an INT8 twin of it, beside it in a live graph, compared.

Both twins read what the layer reads, so that what other layers do to it is left out, and no other layer is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from autoquant.amct.judging import Guard, Judge
from autoquant.amct.logs import log
from autoquant.amct.opened import LiveModel
from autoquant.amct.probes import attach
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Calibrator, Record
from autoquant.errors import DataError, TrialError
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.names import node_of
from autoquant.model.shapes import imported, make_placeholder, tensor_name
from autoquant.quantization.affine import Array
from autoquant.targets.tensorflow import quantized

PREFIX = "autoquant_twins"


@dataclass
class Scores:
    """What `sensitivity` said of each layer, batch by batch; only the first `batch_num` batches count."""

    sensitivity: Any
    batch_num: int
    found: dict[str, list[float]] = field(default_factory=dict)

    def see(self, name: str, original: Array, fakequant: Array) -> None:
        """Compare what the twins of a layer gave for one batch. Raises DataError where the measure gives no number."""
        found = self.found.setdefault(name, [])
        if len(found) == self.batch_num:
            return
        score = float(self.sensitivity.compare(original, fakequant))
        if not math.isfinite(score):
            what = f"the sensitivity of its output is {score}, which cannot be ranked"
            raise DataError(name, what, hint="compare() must return a finite number")
        found.append(score if getattr(self.sensitivity, "higher_is_better", True) else -score)

    def mean(self, name: str) -> float:
        """The mean score of a layer. Raises DataError where it has not had all batches."""
        found = self.found.get(name, [])
        if len(found) < self.batch_num:
            what = f"ran {name} in {len(found)} of {self.batch_num} batches when it was called again"
            raise DataError("evaluator.calibration()", what, hint="it must run the same outputs each time")
        return math.fsum(found) / len(found)


def rank(model: LiveModel, plan: Plan, calibrator: Calibrator, judge: Judge, sensitivity: Any) -> dict[str, float]:
    """The INT8 layers of a plan and their scores, the worst first: the larger, the less INT8 changes the layer.

    Numbers of a measure that goes the other way are negated. A layer that cannot be INT8 at all has minus infinity;
    raises the first TrialError where that is each of them, and whatever the evaluator and the measure raise.
    """
    graph, guard, scores = imported(model.graph), Guard(), Scores(sensitivity, plan.batch_num)
    impossible: dict[str, TrialError] = {}
    for name, settings in plan.int8.items():
        try:
            record = calibrator.record(replace(plan, layers={name: settings}))
            watch_twins(graph, model.graph, model.survey.by_name[name], record, guard, scores)
        except TrialError as error:
            log().warning("%s stays in float: %s", name, error)
            impossible[name] = error
    if len(impossible) == len(plan.int8):
        raise next(iter(impossible.values()))
    judge.calibrate(graph, guard)
    found = {name: -math.inf if name in impossible else scores.mean(name) for name in plan.int8}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def watch_twins(tf_graph: Any, graph: Graph, layer: Layer, record: Record, guard: Guard, scores: Scores) -> None:
    """Put the twins of a layer into a tf.Graph of `graph`, and compare them whenever the layer runs.

    Raises TrialError where the layer cannot be quantized with its record.
    """
    edges = [edge for edge in graph.nodes[layer.node].input if graph.nodes[node_of(edge)].op != "Const"]
    read = {f"{PREFIX}_{edges.index(edge)}": tf_graph.get_tensor_by_name(tensor_name(edge)) for edge in edges}
    names = {edge: f"{PREFIX}_{edges.index(edge)}" for edge in edges}
    alone = _alone(graph, layer, {name: tensor.dtype.as_datatype_enum for name, tensor in read.items()}, names)
    inside = replace(layer, activations=tuple(names[edge] for edge in layer.activations))
    place = f"{PREFIX}/{layer.name.replace(':', '_')}"
    twins = [
        _import(tf_graph, twin, read, f"{place}/{kind}")
        for kind, twin in (("float", alone), ("int8", quantized(alone, {layer.name: inside}, record)))
    ]
    attach(tf_graph, layer.node, twins, guard.watch(partial(scores.see, layer.name)), name=f"{place}/compare")


def ranking_text(ranking: Mapping[str, float]) -> str:
    """accuracy_based_auto_calibration_ranking_information.json: a list of [layer, score], the worst first.

    The score of a layer that cannot be INT8 at all is null.
    """
    entries = [[name, score if math.isfinite(score) else None] for name, score in ranking.items()]
    return json.dumps(entries, indent=2, allow_nan=False) + "\n"


def _alone(graph: Graph, layer: Layer, kinds: Mapping[str, int], names: Mapping[str, str]) -> Graph:
    """The layer and its constants; Placeholders of these names and DataTypes stand for what it reads."""
    placeholders = [make_placeholder(name, kind, None) for name, kind in kinds.items()]
    cut = graph.edit(put=placeholders, redirect=names)
    return replace(cut, inputs=tuple(kinds), outputs=(layer.bias or layer.node,)).pruned()


def _import(tf_graph: Any, twin: Graph, read: Mapping[str, Any], place: str) -> Any:
    """Bring a twin into a tf.Graph without its Placeholders, for which tensors of that are read; give its output."""
    import tensorflow as tf

    graph_def = twin.to_graph_def()
    nodes = [node for node in graph_def.node if node.name not in read]
    del graph_def.node[:]
    graph_def.node.extend(nodes)
    with tf_graph.as_default():
        (output,) = tf.graph_util.import_graph_def(graph_def, dict(read), [tensor_name(twin.outputs[0])], name=place)
    return output
