"""The TensorFlow target: one frozen graph with AMCT's operators, for Ascend and for stock TensorFlow alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Calibrator, Record, record_layers
from autoquant.calibration.statistics import Statistics
from autoquant.files import written_whole
from autoquant.formats.codec import save
from autoquant.formats.quant_json import QuantJson, load_quant_json, quant_json_path
from autoquant.model.graph import FunctionDefLibrary, Graph, GraphDef
from autoquant.model.layer import Layer, Survey
from autoquant.model.model import Model
from autoquant.model.nodes import changed_node
from autoquant.model.operators import node_of
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import Affine
from autoquant.quiet import no_progress
from autoquant.targets.ascend_functions import NAMES, functions_for
from autoquant.targets.base import NO_CORRECTIONS, Corrections, Int8File, OnStep
from autoquant.targets.insertion import NewNode, layer_nodes


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

    def files(self, path: Path) -> tuple[Path, ...]:
        """The graph, and which of its nodes stand for which."""
        return path, quant_json_path(path)

    def lowered(self, model: Model) -> Model:
        """The same model, which must be a graph of TensorFlow. Raises ModelError."""
        return replace(model, program=model.graph)

    def survey(self, model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Survey:
        """The layers of AMCT."""
        return survey_graph(model.graph, input_shapes=input_shapes)

    def tensors(self, model: Model, layers: Mapping[str, Layer]) -> Collection[str]:
        """The activations of the layers: nothing else is quantized."""
        return {tensor for layer in layers.values() for tensor in layer.activations}

    def compiler(self, model: Model, layers: Mapping[str, Layer], statistics: Statistics) -> GraphCompiler:
        """The compiler of graphs."""
        return GraphCompiler(self, model.graph, layers, Calibrator(model.graph, layers, statistics))

    def save(
        self,
        graph: Graph,
        layers: Mapping[str, Layer],
        record: Record,
        path: Path,
        corrections: Corrections = NO_CORRECTIONS,
    ) -> None:
        """Write the graph with the layers of the record in INT8, and which of its nodes stand for which.

        Raises as `quantize`, and RunError where nothing can be written.
        """
        parts = _parts(graph, layers, record, corrections)
        int8 = _assembled(graph, parts, simulation=self.simulation)
        _write(path, int8.to_graph_def(), _stands_for(graph, int8, parts))


@dataclass(frozen=True)
class GraphCompiler:
    """Makes quantized graphs of one model."""

    target: TensorFlowTarget
    graph: Graph
    layers: Mapping[str, Layer]
    calibrator: Calibrator

    def compile(
        self, plan: Plan, path: Path, on_step: OnStep = no_progress, *, corrections: Corrections = NO_CORRECTIONS
    ) -> Int8File:
        """Write the graph of a plan. Raises as `Compiler.compile`."""
        record = _with_activations(self.record(plan), corrections.activations)
        on_step("calibrate")
        self.target.save(self.graph, self.layers, record, path, corrections)
        on_step("save")
        return Int8File(record)

    def record(self, plan: Plan) -> Record:
        """Scale and offset of every INT8 layer. Raises as `Calibrator.record`."""
        return self.calibrator.record(plan)

    def reference(self, plan: Plan) -> Graph:
        """The graph itself: balanced layers divide their input where they quantize it."""
        return self.graph


def _with_activations(record: Record, activations: Mapping[str, Affine]) -> Record:
    """A record with other scales and offsets of activations for some of its entries."""
    changed = {name: replace(record[name], activation=affine) for name, affine in activations.items()}
    return {**record, **changed}


def quantize(graph: Graph, layers: Mapping[str, Layer], record: Record) -> Graph:
    """The graph with the layers of the record in INT8, and the functions that run it.

    Raises PlanError where the record does not fit the model, TrialError where a bias exceeds INT32 or scales multiply
    to what float32 cannot hold.
    """
    return _assembled(graph, _parts(graph, layers, record, NO_CORRECTIONS), simulation=True)


def drop_simulation(path: Path) -> None:
    """Take the functions out of a saved graph that let it run in stock TensorFlow. Raises RunError."""
    graph_def = GraphDef.FromString(path.read_bytes())
    kept = [function for function in graph_def.library.function if function.signature.name not in NAMES]
    graph_def.ClearField("library")
    if kept:
        graph_def.library.function.extend(kept)
    _write(path, graph_def, load_quant_json(quant_json_path(path)).nodes)


def _write(path: Path, graph_def: Any, stands_for: Mapping[str, tuple[str, ...]]) -> None:
    """Write a graph, and beside it which of its nodes stand for which."""
    content = graph_def.SerializeToString(deterministic=True)
    mapping = quant_json_path(path)
    with written_whole(path, size=len(content)) as temporary:
        temporary.write_bytes(content)
        mapping.unlink(missing_ok=True)  # never beside a model that it does not describe
    save(QuantJson(sha256(content).hexdigest(), stands_for), mapping)


def _parts(graph: Graph, layers: Mapping[str, Layer], record: Record, corrections: Corrections) -> list[NewNode]:
    return [
        part
        for layer, entries in record_layers(layers, record)
        for part in layer_nodes(graph, layer, entries, corrections)
    ]


def _assembled(graph: Graph, parts: list[NewNode], *, simulation: bool) -> Graph:
    edited = without_relu6(graph.edit(put=[part.node for part in parts]).pruned())
    functions = FunctionDefLibrary()
    if simulation:
        functions.CopyFrom(functions_for(edited))
    if graph.library is not None:
        functions.MergeFrom(graph.library)
    return Graph(edited.nodes, graph.inputs, graph.outputs, functions if functions.function else None)


def _stands_for(graph: Graph, int8: Graph, parts: list[NewNode]) -> Mapping[str, tuple[str, ...]]:
    """For each node that is not that of the float graph, those that it stands for; unchanged nodes are shared."""
    of = {part.node.name: part.stands_for for part in parts}
    return {name: of.get(name, (name,)) for name, node in int8.nodes.items() if graph.nodes.get(name) is not node}


def without_relu6(graph: Graph) -> Graph:
    """Let a Relu6 be a Relu where all that read it are quantizers that clip below 6, so that nothing changes.

    AMCT's rule ("requant"): (127 - offset) / scale < 6 with the attributes of AscendQuant. Then 6 and all above it
    become 127.
    """
    relu6 = [node for node in graph.nodes.values() if node.op == "Relu6" and node.name not in graph.output_nodes]
    return graph.edit(put=[changed_node(node, op="Relu") for node in relu6 if _only_clipped(graph, node.name)])


def _only_clipped(graph: Graph, name: str) -> bool:
    readers = [graph.nodes[reader] for reader in graph.consumers[name]]
    return bool(readers) and all(
        reader.op == "AscendQuant"
        and node_of(reader.input[0]) == name
        and (127 - reader.attr["offset"].f) / reader.attr["scale"].f < 6.0
        for reader in readers
    )
