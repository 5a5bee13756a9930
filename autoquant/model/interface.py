"""Inputs and outputs of a graph: found, chosen by name, and renamed to what their users call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from tensorflow.python.framework import op_def_registry

from autoquant.errors import ModelError
from autoquant.model.conditions import FUNCTIONAL, MERGES, SWITCHES, is_condition, predicate_of
from autoquant.model.feed import feed_hint
from autoquant.model.graph import Graph
from autoquant.model.loops import CONTROL_FLOW, UNREAD
from autoquant.model.nodes import RESOURCE, AttrValue, attr_of, changed_node, make_node
from autoquant.model.operators import canonical, node_of
from autoquant.model.shapes import (
    import_shapes,
    input_spec,
    make_placeholder,
    placeholder_dtype,
    static_shape,
    tensor_of,
    traced_tensor,
)

NO_OUTPUT = frozenset({"Const", "Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "NoOp", "Assert", "Print"})
VARIABLE = (
    "is a variable ({}): the graph is not frozen",
    "freeze it, or give the SavedModel folder that it came from",
)
QUANTIZED = (
    "is an operator of AMCT ({}): the model is quantized already",
    "give the float model that it was made from",
)
CONTROL = (
    "is control flow of TensorFlow 1 ({})",
    "freeze it with lower_control_flow=False; in an inference graph, is_training is a constant",
)
TABLE = (
    "is a lookup table whose content is not fixed ({})",
    "look up constants (tf.lookup.StaticHashTable), outside of loops and conditions",
)
REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    dict.fromkeys(("Variable", "VariableV2", "VarHandleOp", "ReadVariableOp"), VARIABLE)
    | dict.fromkeys(("TemporaryVariable", "AutoReloadVariable"), VARIABLE)
    | dict.fromkeys(("AscendQuant", "AscendWeightQuant", "AscendDequant", "AscendAntiQuant"), QUANTIZED)
    | dict.fromkeys(("QuantIfmr", "QuantArq", "SearchN"), QUANTIZED)
    | dict.fromkeys(("LookupTableFind", "LookupTableFindV2", "LookupTableSizeV2", "LookupTableExportV2"), TABLE)
    | dict.fromkeys(("HashTable", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2"), TABLE)
    | dict.fromkeys(("Switch", "Merge", "RefSwitch", "RefMerge", "Enter", "RefEnter", "NextIteration"), CONTROL)
)
"""Operator that no float inference graph has -> what is wrong with it, and the way out."""


def find_inputs(graph: Graph) -> tuple[str, ...]:
    """The Placeholders. One with a default counts as its default."""
    return tuple(name for name, node in graph.nodes.items() if node.op in {"Placeholder", "PlaceholderV2"})


def find_outputs(graph: Graph) -> tuple[str, ...]:
    """The nodes that depend on an input and that nobody reads; of a node with several outputs the first.

    Results of a loop that nobody reads count where there is nothing else.
    """
    reached: set[str] = set()
    stack = list(graph.inputs)
    while stack:
        name = stack.pop()
        if name not in reached:
            reached.add(name)
            stack.extend(graph.consumers[name])
    unread = (node for name, node in graph.nodes.items() if name in reached and not graph.consumers[name])
    ends = [node for node in unread if _may_be_output(node)]
    return tuple(node.name for node in ends if node.op != UNREAD) or tuple(node.name for node in ends)


def _may_be_output(node: Any) -> bool:
    if node.op in NO_OUTPUT or "/AssertGuard/" in node.name:  # so is called what tf.debugging.Assert leaves behind
        return False
    definition = op_def_registry.get(node.op)
    return definition is None or bool(definition.output_arg)


def select_interface(graph: Graph, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Graph:
    """The graph between these inputs and outputs, where given, else between its own; raises ModelError."""
    if outputs:
        graph = replace(graph, outputs=tuple(_known(graph, name, "output") for name in outputs))
    if inputs:
        asked = tuple(dict.fromkeys(_known(graph, name, "input") for name in inputs))
        for tensor in asked:
            graph = _opened(graph, tensor)
        graph = replace(graph, inputs=tuple(tensor.replace(":", "_") for tensor in asked))
    if not graph.inputs:
        raise ModelError("graph", "has no Placeholder to feed", hint="name its inputs with --inputs")
    if not graph.outputs:
        graph = replace(graph, outputs=find_outputs(graph))
    if not graph.outputs:
        raise ModelError("graph", "no output depends on an input", hint="name the outputs with --outputs")
    whole, graph = graph, graph.pruned()
    for node in graph.nodes.values():
        if node.op in REFUSED:
            raise _refusal(whole, graph, node)
    return graph if inputs else replace(graph, inputs=needed_inputs(graph) or graph.inputs).pruned()


def _refusal(whole: Graph, graph: Graph, node: Any) -> ModelError:
    """What is wrong with an operator; of a condition of TensorFlow 1, what it depends on."""
    what, hint = REFUSED[node.op]
    if node.op not in CONTROL_FLOW:
        return ModelError(node.name, what.format(node.op), hint=hint)
    decides = next((one for one in graph.nodes.values() if one.op in SWITCHES and is_condition(graph, one)), None)
    node, names = decides or node, find_inputs(whole)
    if decides is not None:
        before = whole.ancestors(predicate_of(decides))
        names = tuple(name for name in names if name in before)
    elif node.op in MERGES:  # of constants: nothing that the outputs depend on says what decides
        names = tuple(name for name in names if placeholder_dtype(whole.nodes[name]).kind == "b")
    else:
        names = ()
    single = [name for name in names if input_spec(whole.nodes[name]).is_single_value]
    if single:
        what = f"is a condition of TensorFlow 1 ({{}}) on '{single[0]}', whose value is not known"
        hint = feed_hint(single[0], placeholder_dtype(whole.nodes[single[0]]))
    elif names and decides is not None:
        what = f"is a condition of TensorFlow 1 ({{}}) that depends on the data ('{names[0]}')"
        hint = "freeze it with lower_control_flow=False: its branches stay in float then"
    return ModelError(node.name, what.format(node.op), hint=hint)


def check_conditions(graph: Graph) -> None:
    """Raise ModelError where a condition depends on an input that is no data: a training switch that is not fed."""
    single = [name for name in graph.inputs if input_spec(graph.nodes[name]).is_single_value]
    for node in graph.nodes.values() if single else ():
        if node.op in FUNCTIONAL:
            before = graph.ancestors(predicate_of(node))
            for name in (name for name in single if name in before):
                what = f"is a condition ({node.op}) on '{name}', whose value is not known"
                raise ModelError(node.name, what, hint=feed_hint(name, placeholder_dtype(graph.nodes[name])))


def needed_inputs(graph: Graph) -> tuple[str, ...]:
    """The inputs that an output depends on."""
    needed = replace(graph, inputs=()).pruned().nodes
    return tuple(name for name in graph.inputs if name in needed)


def check_runnable(graph: Graph) -> None:
    """Raise ModelError where an output needs what is not fed, or no output needs an input."""
    for name, node in graph.nodes.items():
        if node.op.startswith("Placeholder") and name not in graph.inputs and node.op != "PlaceholderWithDefault":
            if attr_of(node, "dtype").type == RESOURCE:
                raise ModelError(name, TABLE[0].format("read in a loop or condition"), hint=TABLE[1])
            what = f"depends on '{name}', which is not fed"
            raise ModelError(", ".join(graph.outputs), what, hint=f"add {name} to --inputs")
    missing = [name for name in graph.inputs if name not in needed_inputs(graph)]
    if missing or not graph.inputs:
        what = f"does not depend on {', '.join(missing) or 'any input'}"
        raise ModelError(", ".join(graph.outputs), what, hint="check --inputs and --outputs")


def rename_interface(graph: Graph, *, inputs: Mapping[str, str], outputs: Iterable[tuple[str, str]]) -> Graph:
    """Call inputs (node -> name) and outputs ((tensor, name) pairs) by their names, made fit for nodes.

    An input gets its name, an output an Identity of its name; where another node has it, the name with a number.
    """
    taken = {}
    for old, wanted in inputs.items():
        graph, taken[old] = _renamed_input(graph, old, node_name(wanted))
    graph = replace(graph, inputs=tuple(taken.get(name, name) for name in graph.inputs))
    tf_graph = import_shapes(graph)
    names = []
    for tensor, wanted in outputs:
        tensor = taken.get(node_of(tensor), canonical(tensor))
        if tensor != node_name(wanted):
            name = graph.free_name(node_name(wanted))
            value = AttrValue(type=tensor_of(tf_graph, tensor).dtype.as_datatype_enum)
            graph, tensor = graph.edit(put=[make_node(name, "Identity", [tensor], T=value)]), name
        names.append(tensor)
    return replace(graph, outputs=tuple(names))


def node_name(text: str) -> str:
    """The text with every character that a node's name may not have as an underscore."""
    return re.sub(r"^[^A-Za-z0-9.]|[^A-Za-z0-9_./\\-]", "_", canonical(text)).lstrip("_") or "tensor"


def _renamed_input(graph: Graph, old: str, wanted: str) -> tuple[Graph, str]:
    if wanted == old:
        return graph, old
    name = graph.free_name(wanted)
    return graph.edit(put=[changed_node(graph.nodes[old], name=name)], drop=[old], redirect={old: name}), name


def _known(graph: Graph, name: str, kind: str) -> str:
    """The tensor in canonical spelling; raises ModelError where there is none, naming the nearest."""
    tensor = canonical(name)
    if tensor in graph.nodes:
        return tensor
    node = graph.nodes.get(node_of(tensor))
    if node is not None and re.fullmatch(r":\d+", tensor.removeprefix(node.name)):
        try:
            traced_tensor(graph, tensor)
        except KeyError:
            raise ModelError(name, f"'{node.name}' has no such output", hint=f"try '{node.name}'") from None
        return tensor
    own = graph.inputs if kind == "input" else graph.outputs or find_outputs(graph)
    near = get_close_matches(name, own, 1, 0.4) or get_close_matches(name, graph.nodes, 1, 0.4)
    listed = ", ".join(own[:5])
    hint = f"did you mean '{near[0]}'?" if near else f"the graph's own: {listed}" if own else ""
    raise ModelError(name, f"no such {kind} in the graph", hint=hint)


def _opened(graph: Graph, tensor: str) -> Graph:
    """The graph with a Placeholder of its type and shape in the tensor's place; of 'a:1' it is called a_1."""
    node = graph.nodes[node_of(tensor)]
    if node.op == "Placeholder":
        return graph
    inner = traced_tensor(graph, tensor)
    name = tensor.replace(":", "_")
    placeholder = make_placeholder(name, inner.dtype.as_datatype_enum, static_shape(inner))
    if name != tensor:
        if name in graph.nodes:
            raise ModelError(tensor, f"cannot be an input: '{name}' is taken", hint="feed the operator that reads it")
        return graph.edit(put=[placeholder], redirect={tensor: name})
    others = [edge for reader in graph.consumers[name] for edge in graph.nodes[reader].input]
    if any(node_of(edge) == name and edge != name for edge in others):
        raise ModelError(tensor, "cannot be an input: its other outputs are read too", hint="feed what reads it")
    return graph.edit(put=[placeholder])
