"""Files that TensorFlow alone refuses."""

from __future__ import annotations

import pytest
from tiny_model import Tiny

from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.litert.convert import convert
from autoquant.model.nodes import FLOAT, make_node
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
