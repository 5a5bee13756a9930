"""How much INT8 changes each layer by itself: in a live graph, a float and an INT8 copy of it are compared.

Both copies read what the layer reads, so that what other layers do to it is left out, and no other layer is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.amct.arguments import by_name_or_own, not_overridden
from autoquant.amct.evaluator import Judge
from autoquant.amct.live_graph import LayerInputs, LiveModel, Probes, live_activations
from autoquant.amct.logs import log
from autoquant.array import Array
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Calibrator, Record
from autoquant.calibration.statistics import Statistics
from autoquant.errors import DataError, TrialError, listed
from autoquant.evaluation.metrics.divergence import cosine_similarity
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.operators import node_of
from autoquant.model.shapes import import_graph, make_placeholder, tensor_name, tensor_of
from autoquant.targets.tensorflow import quantize

PREFIX = "autoquant_ranking"


class SensitivityBase:
    """Compares a layer's output in float with that in INT8; a user's own overrides `compare`.

    AMCT rolls back the layers with the smallest numbers first, so a number must be large where the two are alike.
    A measure that is large where they differ says so with `higher_is_better = False`.
    """

    higher_is_better = True

    def compare(self, original_output: Array, fakequant_output: Array) -> float:
        """One number for two arrays of equal shape: what the layer gives for one batch in float, and in INT8."""
        raise not_overridden(self, "compare(original, fakequant)")


class CosineSimilaritySensitivity(SensitivityBase):
    """0.5 + 0.5 cos of the angle between the two, in [0, 1]; 1 where they have the same direction."""

    def compare(self, original_output: Array, fakequant_output: Array) -> float:
        """1 where the float output is all zero, 0 where only the other is."""
        original, fakequant = _flat(original_output), _flat(fakequant_output)
        if original.any() and not fakequant.any():
            return 0.0
        return 0.5 + 0.5 * cosine_similarity([(original, fakequant)])


class MseSensitivity(SensitivityBase):
    """Mean squared difference; with `do_normalization` as a part of the float output's mean square, if that is not 0.

    It is 0 where the two are equal.
    """

    higher_is_better = False

    def __init__(self, do_normalization: bool = False) -> None:
        self.do_normalization = do_normalization

    def compare(self, original_output: Array, fakequant_output: Array) -> float:
        """In squared units of the output, or without unit when normalized."""
        original, fakequant = _flat(original_output), _flat(fakequant_output)
        error = float(np.mean((original - fakequant) ** 2)) if original.size else 0.0
        power = float(np.mean(original**2)) if self.do_normalization and original.any() else 1.0
        return error / power


SENSITIVITIES: Mapping[str, Callable[[], SensitivityBase]] = MappingProxyType(
    {"CosineSimilarity": CosineSimilaritySensitivity, "Mse": MseSensitivity}
)


def open_sensitivity(sensitivity: Any) -> Any:
    """A measure by name, or the user's own object with a method `compare`. Raises UsageError."""
    return by_name_or_own("sensitivity", sensitivity, SENSITIVITIES, ["compare"], base="SensitivityBase")


def _flat(output: Array) -> Array:
    return np.asarray(output, np.float64).reshape(-1)


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


def observe(model: LiveModel, plan: Plan, judge: Judge) -> Statistics:
    """Let the evaluator calibrate the model, and collect what all INT8 layers of the plan read.

    Raises DataError where it runs fewer than `batch_num` batches, TrialError where values are too many for memory, and
    whatever the evaluator raises. What is wrong with the values of a layer is found when its scales are computed.
    """
    graph, probes, inputs = import_graph(model.graph), Probes(), LayerInputs(plan, model.survey.by_name)
    for name in plan.int8:
        layer = model.survey.by_name[name]
        read, place = partial(inputs.add, name), f"{name.replace(':', '_')}/observed"
        probes.attach(graph, layer.node, live_activations(graph, layer), read, name=place)
    judge.calibrate(graph, probes)
    if inputs.waiting:
        names, fewest = listed([*inputs.waiting]), min(inputs.waiting.values())
        what = f"ran {names} in {fewest} of {plan.batch_num} batches: the calibration is not finished"
        hint = "run the outputs at least batch_num times, or lower batch_num in the config"
        raise DataError("evaluator.calibration()", what, hint=hint)
    return inputs.statistics()


def rank(model: LiveModel, plan: Plan, calibrator: Calibrator, judge: Judge, sensitivity: Any) -> dict[str, float]:
    """The INT8 layers of a plan and their scores, the worst first: the larger, the less INT8 changes the layer.

    Numbers of a measure that goes the other way are negated. A layer that cannot be INT8 at all has minus infinity;
    raises the first TrialError where that is each of them, and whatever the evaluator and the measure raise.
    """
    graph, probes, scores = import_graph(model.graph), Probes(), Scores(sensitivity, plan.batch_num)
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
    read = {name: tensor_of(tf_graph, edge) for edge, name in names.items()}
    placeholders = [make_placeholder(name, tensor.dtype.as_datatype_enum, None) for name, tensor in read.items()]
    alone = graph.edit(put=placeholders, redirect=names)
    alone = replace(alone, inputs=tuple(read), outputs=(layer.bias or layer.node,)).pruned()
    inside = replace(layer, activations=tuple(names[edge] for edge in layer.activations))
    copies = {"float": alone, "int8": quantize(alone, {layer.name: inside}, record)}
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
