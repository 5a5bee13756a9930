"""What quantization makes superfluous in the float operators before it."""

from __future__ import annotations

from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.names import node_of


def without_relu6(graph: Graph) -> Graph:
    """Let a Relu6 be a Relu where all that read it are quantizers that clip below 6, so that nothing changes.

    AMCT's rule ("requant"): (127 - offset) / scale < 6 with the attributes of AscendQuant. Then 6 and all above it
    become 127.
    """
    relu6 = [node for node in graph.nodes.values() if node.op == "Relu6" and node.name not in graph.output_nodes]
    return graph.edit(put=[_relu(node) for node in relu6 if _only_clipped(graph, node.name)])


def _only_clipped(graph: Graph, name: str) -> bool:
    readers = [graph.nodes[reader] for reader in graph.consumers[name]]
    return bool(readers) and all(
        reader.op == "AscendQuant"
        and node_of(reader.input[0]) == name
        and (127 - reader.attr["offset"].f) / reader.attr["scale"].f < 6.0
        for reader in readers
    )


def _relu(node: Any) -> Any:
    relu = type(node)()
    relu.CopyFrom(node)
    relu.op = "Relu"
    return relu
