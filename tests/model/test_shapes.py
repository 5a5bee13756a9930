from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from tensorflow.core.framework import attr_value_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.nodes import make_node
from autoquant.model.shapes import for_one_sample, import_graph, make_placeholder, placeholder_shape, tensor_name


def graph_of(*nodes: Any) -> Graph:
    return Graph(MappingProxyType({node.name: node for node in nodes}), ("x",), (nodes[-1].name,))


@pytest.mark.parametrize("shape", [None, (), (3,), (None, 4, 4, 2)])
def test_a_placeholder_states_its_shape(shape: tuple[Any, ...] | None) -> None:
    assert placeholder_shape(make_placeholder("x", 1, shape)) == shape


def test_an_unknown_operator_is_named() -> None:
    graph = graph_of(make_placeholder("x", 1, (2,)), make_node("mine", "MyOwnOperator", ["x"]))
    with pytest.raises(ModelError, match="mine: TensorFlow has no operator 'MyOwnOperator'; custom operators"):
        import_graph(graph)


def test_errors_of_tensorflow_are_told_in_one_line() -> None:
    text = attr_value_pb2.AttrValue(type=7)
    graph = graph_of(make_placeholder("x", 1, (2,)), make_node("y", "Identity", ["x"], T=text))
    with pytest.raises(ModelError, match=r"TensorFlow refuses it: .*y") as caught:
        import_graph(graph)
    assert "\n" not in str(caught.value)


def test_an_open_batch_becomes_one_and_nothing_else_changes() -> None:
    graph = for_one_sample(graph_of(make_placeholder("x", 1, (None, None, 3))))
    assert placeholder_shape(graph.nodes["x"]) == (1, None, 3)
    fixed = for_one_sample(graph_of(make_placeholder("x", 1, (8, 3))))
    assert placeholder_shape(fixed.nodes["x"]) == (8, 3)


@pytest.mark.parametrize(("tensor", "name"), [("a", "a:0"), ("a:1", "a:1")])
def test_tensorflow_spells_every_output(tensor: str, name: str) -> None:
    assert tensor_name(tensor) == name
