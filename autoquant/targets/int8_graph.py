"""Saved INT8 graphs, opened to be run as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError

from autoquant.errors import ModelError
from autoquant.model.graph import FunctionDefLibrary, Graph, GraphDef
from autoquant.model.inference import inference_graph
from autoquant.model.interface import find_inputs, find_outputs, needed_inputs
from autoquant.model.model import EXPECTED, WHOLE, Model
from autoquant.model.operators import canonical
from autoquant.model.shapes import import_shapes, input_specs
from autoquant.model.trust import check_constants, check_graph
from autoquant.targets.ascend_functions import NAMES, functions_for


def open_int8_graph(
    path: Path, *, outputs: Sequence[str] = (), feed: Mapping[str, str], trust: bool = False
) -> Model | None:
    """The graph of a .pb with INT8 operators, as it is; None where it has none.

    Functions that run these in stock TensorFlow are added where the file has none, as AMCT's have not. `outputs` are
    those of the file unless they name others. Raises ModelError where the file is damaged, refused (model/trust.py), or
    is not run by TensorFlow.
    """
    graph_def = GraphDef()
    try:
        content = path.read_bytes()
        graph_def.ParseFromString(content)
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=EXPECTED) from error
    except DecodeError as error:
        raise ModelError(str(path), "is not a GraphDef, or is incomplete", hint=WHOLE) from error
    if not any(node.op in NAMES for node in graph_def.node):
        return None
    check_constants(str(path), graph_def)
    if not trust:
        check_graph(str(path), graph_def)
    open_ones = {node.name for node in graph_def.node if node.op.startswith("Placeholder")}
    feed = {name: value for name, value in feed.items() if name in open_ones}  # it was saved from a graph that was fed
    graph = _runnable(inference_graph(graph_def, feed=feed, keep_calls=True))
    graph = replace(graph, inputs=find_inputs(graph))
    named = tuple(canonical(name) for name in outputs)
    known = [name for name in named if name.partition(":")[0] in graph.nodes]
    if len(known) < len(named):
        missing = next(name for name in named if name not in known)
        raise ModelError(str(path), f"has no output '{missing}'", hint=f"its own: {', '.join(find_outputs(graph))}")
    graph = replace(graph, outputs=named or find_outputs(graph))
    graph = replace(graph, inputs=needed_inputs(graph)).pruned()
    import_shapes(graph)  # whatever TensorFlow refuses is found here
    return Model(path.resolve().stem, graph, input_specs(graph), hashlib.sha256(content).hexdigest())


def _runnable(graph: Graph) -> Graph:
    """The graph with the functions that it lacks."""
    there = set() if graph.library is None else {one.signature.name for one in graph.library.function}
    if there.issuperset(node.op for node in graph.nodes.values() if node.op in NAMES):
        return graph
    library = FunctionDefLibrary()
    if graph.library is not None:
        library.CopyFrom(graph.library)
    try:
        library.function.extend(one for one in functions_for(graph).function if one.signature.name not in there)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelError("graph", "an AscendDequant has no scale that is a constant", hint=WHOLE) from error
    return replace(graph, library=library)
