"""Lookup tables whose content does not change, as constants: stock operators without state find what they hold.

The keys are sorted, those that are text by a hash, and searched. What is found is compared with what was looked up, so
that the result is exactly that of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.nodes import INT32, INT64, STRING, AttrValue, attr_of, make_const, make_node
from autoquant.model.operators import node_of
from autoquant.model.shapes import import_graph

FIND, SIZE = "LookupTableFindV2", "LookupTableSizeV2"
TABLES = frozenset({"HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2"})
FILLING = frozenset({"InitializeTableV2", "InitializeTableFromTextFileV2", "LookupTableImportV2"})
BUCKETS = 2**62
"""Hashes of text are below it: two of a million keys have the same one with a probability of 1e-7."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a table holds: distinct `keys`, (entries,), and the value of each, (entries,)."""

    keys: Array
    values: Array


Read = Callable[[str, int, int], Table]
"""Gives the content of the table that a node makes; the types of its keys and values are numbers of DataType."""


def with_constant_tables(graph: Graph, read: Read) -> Graph:
    """Let every lookup in a table be a search in constants. Raises ModelError where that cannot be, or as `read`.

    Tables that a loop or condition is given stay.
    """
    lookups = [node for node in graph.nodes.values() if node.op == FIND]
    types = {_maker(graph, node): (attr_of(node, "Tin").type, attr_of(node, "Tout").type) for node in lookups}
    tables = {name: read(name, *kinds) for name, kinds in types.items()}
    for node in lookups:
        table = tables[_maker(graph, node)]
        if table.keys.ndim != 1 or table.values.ndim != 1:
            raise ModelError(node.name, "looks up vectors in a table", hint="look up indices, and gather rows by them")
        graph = graph.edit(put=list(_search(graph, node, table)))
    sizes = [node for node in graph.nodes.values() if node.op == SIZE and _maker(graph, node) in tables]
    return graph.edit(put=[make_const(one.name, np.array(len(tables[_maker(graph, one)].keys))) for one in sizes])


def session_reader(session: Any, where: str) -> Read:
    """Read tables of a graph of TensorFlow 1, as they are in a session. Raises ModelError where one is empty."""
    import tensorflow as tf

    def read(name: str, keys: int, values: int) -> Table:
        try:
            with session.graph.as_default():
                handle = session.graph.get_tensor_by_name(f"{name}:0")
                content = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=keys, Tvalues=values)
            return Table(*session.run(content))
        except (KeyError, tf.errors.OpError) as error:  # its handle was an input, or nothing fills it
            what = f"the content of its lookup table '{name}' is not in the file"
            raise ModelError(where, what, hint="give the SavedModel or .keras file that it was made from") from error

    return read


def eager_reader(handles: Mapping[str, Any]) -> Read:
    """Read tables by their handles, as an eager program has them."""
    import tensorflow as tf

    def read(name: str, keys: int, values: int) -> Table:
        content = tf.raw_ops.LookupTableExportV2(table_handle=handles[name], Tkeys=keys, Tvalues=values)
        return Table(content.keys.numpy(), content.values.numpy())

    return read


def with_own_tables(graph: Graph, where: str) -> Graph:
    """`with_constant_tables` for a frozen graph, which must have the operators that fill its tables."""
    import tensorflow as tf

    if all(node.op != FIND for node in graph.nodes.values()):
        return graph
    filling = [node.name for node in graph.nodes.values() if node.op in FILLING]
    tables = [node.name for node in graph.nodes.values() if node.op in TABLES]
    part = import_graph(replace(graph, inputs=(), outputs=(*filling, *tables)).pruned())
    with tf.compat.v1.Session(graph=part) as session:
        try:
            if filling:
                session.run(filling)
        except tf.errors.OpError as error:  # a vocabulary in a file that is elsewhere
            what = "its lookup tables cannot be filled, as from a vocabulary in another file"
            raise ModelError(where, what, hint="give the SavedModel or .keras file that it was made from") from error
        return with_constant_tables(graph, session_reader(session, where))


def _maker(graph: Graph, node: Any) -> str:
    """The node that makes the table which a node, or those that hand it on, reads."""
    source = graph.nodes[node_of(node.input[0])]
    return _maker(graph, source) if source.op == "Identity" else str(source.name)


def _search(graph: Graph, node: Any, table: Table) -> Iterator[Any]:
    """The nodes that find what a table has for the keys that `node` reads; the last has its name."""
    _, keys, default = node.input
    kind, value_kind = AttrValue(type=attr_of(node, "Tin").type), AttrValue(type=attr_of(node, "Tout").type)
    int32, int64 = AttrValue(type=INT32), AttrValue(type=INT64)

    def named(part: str) -> str:
        return graph.free_name(f"{node.name}/{part}")

    yield make_node(named("shape"), "Shape", [keys], T=kind, out_type=int32)
    if not len(table.keys):
        yield make_node(node.name, "BroadcastTo", [default, named("shape")], T=value_kind, Tidx=int32)
        return
    numbers, numbers_kind, read = table.keys, kind, keys
    if kind.type == STRING:
        numbers, numbers_kind, read = _hashes(table.keys, node.name), int64, named("hash")
        yield make_node(read, "StringToHashBucketFast", [keys], num_buckets=BUCKETS)
    order = np.argsort(numbers)
    yield make_const(named("sorted"), numbers[order][None])
    yield make_const(named("keys"), table.keys[order])
    yield make_const(named("values"), table.values[order])
    yield make_const(named("row"), np.array([1, -1], np.int32))
    yield make_const(named("last"), np.array(len(order) - 1, np.int32))
    yield make_const(named("axis"), np.array(0, np.int32))
    yield make_node(named("numbers"), "Reshape", [read, named("row")], T=numbers_kind, Tshape=int32)
    yield make_node(named("bound"), "LowerBound", [named("sorted"), named("numbers")], T=numbers_kind, out_type=int32)
    yield make_node(named("near"), "Minimum", [named("bound"), named("last")], T=int32)
    yield make_node(named("place"), "Reshape", [named("near"), named("shape")], T=int32, Tshape=int32)
    for part, own in (("keys", kind), ("values", value_kind)):
        inputs = [named(part), named("place"), named("axis")]
        yield make_node(named(f"found_{part}"), "GatherV2", inputs, Tparams=own, Tindices=int32, Taxis=int32)
    yield make_node(named("same"), "Equal", [named("found_keys"), keys], T=kind)
    yield make_node(node.name, "SelectV2", [named("same"), named("found_values"), default], T=value_kind)


def _hashes(keys: Array, where: str) -> Array:
    import tensorflow as tf
    from tensorflow.python.eager.context import eager_mode

    with eager_mode():  # also while a session is open
        hashes: Array = tf.raw_ops.StringToHashBucketFast(input=keys, num_buckets=BUCKETS).numpy()
    if len(np.unique(hashes)) < len(hashes):
        raise ModelError(where, "two keys of its table have the same hash", hint="change the vocabulary by one entry")
    return hashes
