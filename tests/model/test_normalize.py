from __future__ import annotations

import time
from types import MappingProxyType

import numpy as np
from tensorflow.core.framework import attr_value_pb2

from autoquant.model.graph import Graph, make_const, make_node
from autoquant.model.normalize import normalize
from autoquant.model.shapes import make_placeholder

FLOAT = attr_value_pb2.AttrValue(type=1)


def ops(graph: Graph) -> list[str]:
    return sorted(node.op for node in graph.nodes.values() if node.op != "Const")


def test_five_thousand_nodes_with_a_thousand_rewrites_take_seconds() -> None:
    nodes = [make_placeholder("x", 1, (None, 4)), make_const("c", np.full(4, 0.9, np.float32))]
    last = "x"
    for i in range(550):
        nodes += [
            make_const(f"w{i}", np.eye(4, dtype=np.float32)),
            make_const(f"b{i}", np.ones(4, np.float32)),
            make_node(f"w{i}/read", "Identity", [f"w{i}"], T=FLOAT),
            make_node(f"a{i}", "MatMul", [last, f"w{i}/read"], T=FLOAT),
            make_node(f"m{i}", "Mul", [f"a{i}", "c"], T=FLOAT),
            make_node(f"s{i}", "AddV2", [f"m{i}", f"b{i}"], T=FLOAT),
            make_node(f"i{i}", "Identity", [f"s{i}"], T=FLOAT),
            make_node(f"r{i}", "Relu", [f"i{i}"], T=FLOAT),
            make_node(f"j{i}", "StopGradient", [f"r{i}"], T=FLOAT),
        ]
        last = f"j{i}"
    graph = Graph(MappingProxyType({n.name: n for n in nodes}), ("x",), (last,))
    start = time.process_time()
    result = normalize(graph)
    seconds = time.process_time() - start
    assert len(nodes) == 4952
    assert ops(result).count("MatMul") == ops(result).count("BiasAdd") == 550
    assert "Mul" not in ops(result)
    assert seconds < 10.0  # 1.2 s where it was measured
