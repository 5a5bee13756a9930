"""The TensorFlow target: one frozen graph with AMCT's operators, for Ascend and for stock TensorFlow alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from tensorflow.core.framework import function_pb2

from autoquant.calibration.record import Record
from autoquant.files import written_whole
from autoquant.formats.quant_json import QuantJson, quant_json_path, save_quant_json
from autoquant.model.graph import Graph
from autoquant.model.layers import Layer
from autoquant.targets.ascend_functions import functions_for
from autoquant.targets.fitting import fitted
from autoquant.targets.insertion import Part, layer_parts
from autoquant.targets.requantization import without_relu6


@dataclass(frozen=True, slots=True)
class TensorFlowTarget:
    """Writes `<name>_quantized.pb`, and beside it `<name>_quant.json`.

    `simulation` False leaves out the functions that let the file run in stock TensorFlow, for converters that do not
    want them.
    """

    name: ClassVar[str] = "tensorflow"
    simulation: bool = True

    def file_name(self, model: str) -> str:
        """As AMCT names it."""
        return f"{model}_quantized.pb"

    def save(self, graph: Graph, layers: Mapping[str, Layer], record: Record, path: Path) -> None:
        """Write the graph with the layers of the record in INT8, and which of its nodes stand for which.

        Raises as `quantized`, and RunError where nothing can be written.
        """
        parts = _parts(graph, layers, record)
        int8 = _assembled(graph, parts, simulation=self.simulation)
        content = int8.to_graph_def().SerializeToString(deterministic=True)
        mapping = quant_json_path(path)
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
            mapping.unlink(missing_ok=True)  # never beside a model that it does not describe
        save_quant_json(QuantJson(sha256(content).hexdigest(), _stands_for(graph, int8, parts)), mapping)


def quantized(graph: Graph, layers: Mapping[str, Layer], record: Record) -> Graph:
    """The graph with the layers of the record in INT8, and the functions that run it.

    Raises PlanError where the record does not fit the model, TrialError where a bias exceeds INT32 or scales multiply
    to what float32 cannot hold.
    """
    return _assembled(graph, _parts(graph, layers, record), simulation=True)


def _parts(graph: Graph, layers: Mapping[str, Layer], record: Record) -> list[Part]:
    return [part for layer, entries in fitted(layers, record) for part in layer_parts(graph, layer, entries)]


def _assembled(graph: Graph, parts: list[Part], *, simulation: bool) -> Graph:
    edited = without_relu6(graph.edit(put=[part.node for part in parts]).pruned())
    functions = function_pb2.FunctionDefLibrary()
    if simulation:
        functions.CopyFrom(functions_for(edited))
    if graph.library is not None:
        functions.MergeFrom(graph.library)
    return Graph(edited.nodes, graph.inputs, graph.outputs, functions if functions.function else None)


def _stands_for(graph: Graph, int8: Graph, parts: list[Part]) -> Mapping[str, tuple[str, ...]]:
    """For each node that is not that of the float graph, those that it stands for; unchanged nodes are shared."""
    of = {part.node.name: part.stands_for for part in parts}
    return {name: of.get(name, (name,)) for name, node in int8.nodes.items() if graph.nodes.get(name) is not node}
