"""Files that TensorFlow alone refuses."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.litert.convert import convert
from autoquant.model.nodes import FLOAT, INT32, AttrValue, make_node
from autoquant.model.open import open_model
from autoquant.model.shapes import make_placeholder


def test_a_tflite_model_is_not_for_tensorflow(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match=r"cannot run a \.tflite model.*--engine litert"):
        TensorFlowEngine().open_graph(convert(open_model(tiny.model).graph))


def test_a_graph_that_is_refused_says_why() -> None:
    nodes = [make_placeholder("x", FLOAT, (None, 2)), make_node("y", "NoSuchOperator", ["x"])]
    graph = Graph.from_graph_def(GraphDef(node=nodes), inputs=["x"], outputs=["y"])
    with pytest.raises(TrialError, match="NoSuchOperator"):
        TensorFlowEngine().open_graph(graph)


def test_a_graph_that_does_not_run_says_why() -> None:
    """TensorFlow begins with 'Graph execution error:', and says the reason below."""
    nodes = [make_placeholder("x", FLOAT, (None, 2)), make_placeholder("s", INT32, (2,))]
    reshape = make_node("y", "Reshape", ["x", "s"], T=AttrValue(type=FLOAT), Tshape=AttrValue(type=INT32))
    graph = Graph.from_graph_def(GraphDef(node=[*nodes, reshape]), inputs=["x", "s"], outputs=["y"])
    data = {"x": np.ones((4, 2), np.float32), "s": np.array([3, 5], np.int32)}
    message = "does not run: Input to reshape is a tensor with 4 values, but the requested shape has 15; check"
    with closing(TensorFlowEngine().open_graph(graph, ["y"])) as runner, pytest.raises(TrialError, match=message):
        runner(data)
