import time
from types import MappingProxyType

import numpy as np
import pytest
from tensorflow.core.framework import attr_value_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.nodes import const_shape, make_const, make_node
from autoquant.model.operators import canonical, node_of


def chain(length: int) -> Graph:
    """From x -> n0 -> n1 -> ... with a side branch from n0 to the output 'y'."""
    nodes = [make_node("x", "Placeholder"), make_node("n0", "Relu", ["x"])]
    nodes += [make_node(f"n{i}", "Relu", [f"n{i - 1}"]) for i in range(1, length)]
    nodes += [make_node("y", "AddV2", [f"n{length - 1}", "n0"])]
    return Graph(MappingProxyType({node.name: node for node in nodes}), ("x",), ("y",))


@pytest.mark.parametrize(
    ("text", "node", "tensor"), [("a", "a", "a"), ("a:0", "a", "a"), ("a/b:1", "a/b", "a/b:1"), ("^a", "a", "^a")]
)
def test_a_tensor_has_a_node_and_one_spelling(text: str, node: str, tensor: str) -> None:
    assert (node_of(text), canonical(text)) == (node, tensor)


def test_control_edges_and_placement_are_not_kept() -> None:
    graph_def = GraphDef()
    const = make_const("c", np.array(1, np.float32))
    const.attr["_class"].list.s.append(b"loc:@gone")
    graph_def.node.extend([const, make_node("y", "Relu", ["c:0", "^c"])])
    graph_def.node[1].device = "/gpu:0"
    graph = Graph.from_graph_def(graph_def, inputs=(), outputs=("y:0",))
    assert list(graph.nodes["y"].input) == ["c"]
    assert graph.nodes["y"].device == ""
    assert "_class" not in graph.nodes["c"].attr
    assert graph.outputs == ("y",)
    assert graph_def.node[0].attr["_class"].list.s == [b"loc:@gone"]  # what was given is not changed


def test_a_missing_node_and_a_name_twice_are_refused() -> None:
    graph_def = GraphDef()
    graph_def.node.extend([make_node("y", "Relu", ["gone"])])
    with pytest.raises(ModelError, match="reads 'gone'"):
        Graph.from_graph_def(graph_def, inputs=(), outputs=("y",))
    graph_def.node.extend([make_node("y", "Relu", ["y"])])
    with pytest.raises(ModelError, match="two nodes"):
        Graph.from_graph_def(graph_def, inputs=(), outputs=("y",))


def test_constants_round_trip() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = Graph(MappingProxyType({"c": make_const("c", value), "r": make_node("r", "Relu", ["c"])}), (), ("r",))
    np.testing.assert_array_equal(graph.constant("c"), value)
    assert const_shape(graph.nodes["c"]) == (2, 3)
    assert graph.constant("r") is None


def test_single_consumer_is_the_only_reader_of_what_is_no_output() -> None:
    graph = chain(3)
    consumer = graph.single_consumer("n1")
    assert consumer is not None
    assert consumer.name == "n2"
    assert graph.single_consumer("n0") is None  # two readers
    assert graph.single_consumer("y") is None  # nobody
    twice = graph.edit(put=[make_node("n2", "AddV2", ["n1", "n1"])])
    assert twice.single_consumer("n1") is None
    output = Graph(graph.nodes, graph.inputs, ("n1",))
    assert output.single_consumer("n1") is None


def test_edit_redirects_drops_and_puts_without_changing_the_original() -> None:
    graph = chain(3)
    edited = graph.edit(drop=["n1"], redirect={"n1": "n0"}, put=[make_node("new", "Relu", ["n2"])])
    assert list(edited.nodes["n2"].input) == ["n0"]
    assert "n1" not in edited.nodes
    assert list(graph.nodes["n2"].input) == ["n1"]
    assert edited.nodes["y"] is graph.nodes["y"]  # what is not touched is shared


def test_readers_carried_through_edits_equal_those_counted_anew() -> None:
    graph = chain(6)
    random = np.random.default_rng(3)
    for step in range(60):
        names = [name for name in graph.nodes if name not in ("x", "y")]
        name = str(random.choice(names))
        match step % 3:
            case 0:
                graph = graph.edit(put=[make_node(f"p{step}", "Relu", [name])], redirect={name: f"p{step}"})
            case 1:
                graph = graph.edit(put=[make_node(name, "AddV2", ["x", "x:1"])])
            case _:
                graph = graph.edit(drop=[name], redirect={name: "x"})
        counted = Graph(graph.nodes, graph.inputs, graph.outputs).consumers
        assert {k: set(v) for k, v in graph.consumers.items()} == {k: set(v) for k, v in counted.items()}
        assert all(len(set(v)) == len(v) for v in graph.consumers.values())


def test_pruned_keeps_inputs_and_what_outputs_need() -> None:
    graph = Graph(chain(4).nodes, ("x",), ("n1",)).pruned()
    assert set(graph.nodes) == {"x", "n0", "n1"}
    assert graph.pruned() is graph


def test_ordered_puts_inputs_first_and_refuses_cycles() -> None:
    graph = chain(4)
    backwards = Graph(MappingProxyType(dict(reversed(list(graph.nodes.items())))), graph.inputs, graph.outputs)
    order = [node.name for node in backwards.ordered()]
    assert sorted(order) == sorted(graph.nodes)
    assert all(
        order.index(node_of(edge)) < order.index(name) for name, node in graph.nodes.items() for edge in node.input
    )
    looped = graph.edit(put=[make_node("n0", "Relu", ["n3"])])
    with pytest.raises(ModelError, match="cycle"):
        list(looped.ordered())


def test_free_name_numbers_what_is_taken() -> None:
    graph = chain(2).edit(put=[make_node("n1_1", "Relu", ["x"])])
    assert [graph.free_name(name) for name in ("new", "n1")] == ["new", "n1_2"]


def test_node_attributes_have_their_kinds() -> None:
    kind = attr_value_pb2.AttrValue(type=1)
    node = make_node("n", "Op", ["a"], flag=True, count=3, rate=0.5, text=b"t", T=kind)
    assert (node.attr["flag"].b, node.attr["count"].i, node.attr["rate"].f) == (True, 3, 0.5)
    assert (node.attr["text"].s, node.attr["T"].type) == (b"t", 1)


def test_a_thousand_rewrites_of_five_thousand_nodes_take_no_time_to_speak_of() -> None:
    graph = chain(5000)
    start = time.process_time()
    for i in range(1, 3000, 3):
        graph = graph.edit(drop=[f"n{i}"], redirect={f"n{i}": f"n{i - 1}"})
        assert graph.consumers[f"n{i - 1}"]
    assert len(graph.nodes) == 4002
    assert time.process_time() - start < 5.0  # 0.3 s where it was measured
