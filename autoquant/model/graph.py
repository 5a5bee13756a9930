"""The inference graph: nodes known by name, never changed in place, shared between versions of the graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from tensorflow.core.framework import function_pb2, graph_pb2
from tensorflow.python.framework import tensor_util

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.nodes import changed_node
from autoquant.model.operators import canonical, node_of

T = TypeVar("T")
GraphDef = graph_pb2.GraphDef
FunctionDefLibrary = function_pb2.FunctionDefLibrary


@dataclass(frozen=True)
class Graph:
    """A frozen inference graph.

    `nodes` holds NodeDef messages that nobody may change: an edited graph shares all that it did not replace. Inputs
    are names of Placeholder nodes; outputs are tensors in canonical spelling. Control edges are not kept.
    """

    nodes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    library: Any = field(default=None, compare=False)

    @classmethod
    def from_graph_def(cls, graph_def: Any, *, inputs: Iterable[str], outputs: Iterable[str]) -> Graph:
        """A graph of a GraphDef, without control edges and placement; raises ModelError where a node is missing.

        Nodes are copies: each of a message's parts holds the memory of all, and of a weight that was folded, too.
        """
        nodes: dict[str, Any] = {}
        for node in graph_def.node:
            if node.name in nodes:
                raise ModelError(node.name, "two nodes have this name", hint="export the model again")
            nodes[node.name] = _bare(node)
        library = None
        if graph_def.library.function:
            library = FunctionDefLibrary()
            library.CopyFrom(graph_def.library)
        graph = cls(
            MappingProxyType(nodes), tuple(node_of(i) for i in inputs), tuple(canonical(o) for o in outputs), library
        )
        graph.verify()
        return graph

    def to_graph_def(self) -> Any:
        """The GraphDef, nodes in an order in which inputs come first."""
        from tensorflow.python.framework import versions

        graph_def = GraphDef()
        graph_def.node.extend(self.ordered())
        graph_def.versions.producer = versions.GRAPH_DEF_VERSION
        if self.library is not None:
            graph_def.library.CopyFrom(self.library)
        return graph_def

    @property
    def size(self) -> int:
        """Bytes of its constants."""
        constants = (node for node in self.nodes.values() if node.op == "Const")
        return sum(len(node.attr["value"].tensor.tensor_content) for node in constants)

    @property
    def output_nodes(self) -> frozenset[str]:
        """The nodes whose names must not change because outputs are called after them."""
        return frozenset(node_of(output) for output in self.outputs)

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        """For each node the nodes that read any of its outputs, each once."""
        readers: dict[str, dict[str, None]] = {name: {} for name in self.nodes}
        for name, node in self.nodes.items():
            for edge in node.input:
                readers[node_of(edge)][name] = None
        return MappingProxyType({name: tuple(found) for name, found in readers.items()})

    def constant(self, tensor: str) -> Array | None:
        """The value of a tensor that a Const makes, or None."""
        node = self.nodes[node_of(tensor)]
        return None if node.op != "Const" else np.asarray(tensor_util.MakeNdarray(node.attr["value"].tensor))

    def single_consumer(self, name: str) -> Any | None:
        """The one node that reads `name`, when nothing else does and it is not an output."""
        readers = self.consumers[name]
        if len(readers) != 1 or name in self.output_nodes:
            return None
        reader = self.nodes[readers[0]]
        return reader if sum(node_of(edge) == name for edge in reader.input) == 1 else None

    def ancestors(self, *tensors: str) -> Mapping[str, Any]:
        """The nodes that make the tensors, and all that these depend on."""
        found: dict[str, Any] = {}
        stack = [node_of(tensor) for tensor in tensors]
        while stack:
            name = stack.pop()
            if name not in found:
                found[name] = self.nodes[name]
                stack.extend(node_of(edge) for edge in self.nodes[name].input)
        return found

    def free_name(self, wanted: str) -> str:
        """The name itself, or with a number where a node has it."""
        return next(name for name in chain((wanted,), (f"{wanted}_{n}" for n in count(1))) if name not in self.nodes)

    def edit(
        self,
        *,
        put: Iterable[Any] = (),
        drop: Collection[str] = (),
        redirect: Mapping[str, str] = MappingProxyType({}),
    ) -> Graph:
        """A new graph: `drop` nodes, let readers of each key of `redirect` read its value instead, `put` nodes.

        A node that is put replaces one of the same name and is not redirected itself. Outputs are never redirected:
        their names are the promise of the graph.
        """
        nodes = _copied(self.nodes)
        touched = set(drop)
        for old, new in redirect.items():
            was, now = canonical(old), canonical(new)
            for reader in self.consumers[node_of(old)]:
                edges = nodes[reader].input
                nodes[reader] = changed_node(nodes[reader], inputs=[now if edge == was else edge for edge in edges])
                touched.add(reader)
        for name in drop:
            del nodes[name]
        for node in put:
            nodes[node.name] = node
            touched.add(node.name)
        edited = Graph(MappingProxyType(nodes), self.inputs, self.outputs, self.library)
        # Counting the readers again for each of a thousand rewrites would take most of the time.
        edited.__dict__["consumers"] = self._consumers_after(nodes, touched)
        return edited

    def _consumers_after(self, nodes: Mapping[str, Any], touched: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        readers = _copied(self.consumers)
        for name in touched:
            was = _sources(self.nodes.get(name))
            now = _sources(nodes.get(name))
            for source in was - now:
                readers[source] = tuple(reader for reader in readers.get(source, ()) if reader != name)
            for source in now - was:
                readers[source] = (*readers.get(source, ()), name)
            readers.setdefault(name, ())
        for name in readers.keys() - nodes.keys():
            del readers[name]
        return MappingProxyType(readers)

    def pruned(self) -> Graph:
        """Without nodes that no output needs; inputs stay, needed or not."""
        needed = self.ancestors(*self.inputs, *self.outputs)
        if len(needed) == len(self.nodes):
            return self
        kept = {name: node for name, node in self.nodes.items() if name in needed}
        return Graph(MappingProxyType(kept), self.inputs, self.outputs, self.library)

    def ordered(self) -> Iterator[Any]:
        """Nodes, inputs before readers. Raises ModelError on a cycle (loops of TensorFlow 1 are such)."""
        done: set[str] = set()
        open_: set[str] = set()
        for start in self.nodes:
            stack = [(start, False)]
            while stack:
                name, leaving = stack.pop()
                if leaving:
                    open_.discard(name)
                    done.add(name)
                    yield self.nodes[name]
                elif name not in done:
                    if name in open_:
                        raise ModelError(name, "the graph has a cycle", hint="export an inference graph without cycles")
                    open_.add(name)
                    stack.append((name, True))
                    stack.extend((node_of(e), False) for e in self.nodes[name].input if node_of(e) not in done)

    def verify(self) -> None:
        """Raise ModelError unless every edge and output is there."""
        for node in self.nodes.values():
            for edge in node.input:
                if node_of(edge) not in self.nodes:
                    raise ModelError(node.name, f"reads '{edge}', which is not in the graph", hint="is the file whole?")
        for name in (*self.inputs, *map(node_of, self.outputs)):
            if name not in self.nodes:
                raise ModelError(name, "is not in the graph", hint="`autoquant inspect` lists what is")


def _bare(node: Any) -> Any:
    """A copy of the node without control edges, and without what ties it to a device or to nodes that may go."""
    bare = changed_node(node, inputs=[canonical(edge) for edge in node.input if not edge.startswith("^")])
    bare.device = ""
    for key in ("_class", "_output_shapes"):
        bare.attr.pop(key, None)
    return bare


def _sources(node: Any | None) -> set[str]:
    return set() if node is None else {node_of(edge) for edge in node.input}


def _copied(mapping: Mapping[str, T]) -> dict[str, T]:
    # The copy of a proxy is that of its dict, ten times as fast as dict(proxy).
    return mapping.copy() if isinstance(mapping, MappingProxyType) else dict(mapping)
