"""Weights are found by a number that no factor changes, and compared with few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.evaluation.engines import fake_quant_places
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer, matching
from autoquant.model.litert.convert import convert
from autoquant.model.litert.matching import match
from autoquant.model.litert.weight_index import WeightIndex, peakedness

LAYERS = 24
WEIGHTS = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(-1e3, 1e3))


@given(WEIGHTS, st.integers(0, 1), st.data())
def test_no_factor_changes_peakedness(weight: Any, axis: int, data: st.DataObject) -> None:
    """Beside NumPy's by hand; rounding to 1e-5 of the largest value changes it by less than four times that."""
    factor = data.draw(hnp.arrays(np.float64, weight.shape[axis], elements=st.floats(0.01, 100.0)))
    noise = data.draw(hnp.arrays(np.float64, weight.shape, elements=st.floats(-1.0, 1.0)))
    largest = np.abs(weight).max(axis=1 - axis, keepdims=True)
    other = (weight + 1e-5 * largest * noise) * np.expand_dims(factor, 1 - axis)
    rows = [row for row in np.moveaxis(weight, axis, 0) if row.any()]
    by_hand = sum(np.abs(row / np.abs(row).max()).sum() / row.size for row in rows)
    assert peakedness(weight, axis) == pytest.approx(by_hand, rel=1e-9)
    assert abs(peakedness(other, axis) - by_hand) <= 4e-5 * weight.shape[axis] + 1e-12


def test_what_is_near() -> None:
    index = WeightIndex.of([("a", 1.0, 7), ("a", 2.0, 3), ("a", np.inf, 4), ("b", 1.0, 5)])
    assert index.near("a", 1.001, 0.01) == [7]
    assert index.near("a", 1.5, 0.5) == [7, 3]
    assert index.near("c", 1.0, 9.0) == []
    assert index.all("a") == [7, 3, 4]
    assert peakedness(np.array([[np.nan, 1.0]]), 0) == np.inf


@pytest.fixture(scope="module")
def chain() -> Graph:
    """Layers of one shape."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        y = tf.compat.v1.placeholder(tf.float32, (None, 8), name="x")
        for number in range(LAYERS):
            y = tf.nn.relu(tf.matmul(y, tf.constant(rng.normal(size=(8, 8)), tf.float32), name=f"l{number}"))
        tf.identity(y, name="y")
    return Graph.from_graph_def(graph.as_graph_def(), inputs=["x"], outputs=["y"])


def test_layers_without_names_are_compared_with_few(chain: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    lite = convert(chain)
    model = flatbuffer.read(lite.content)
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"t{number}".encode()
    calls, compare = [0], matching.equal_but_for_factors

    def counted(*given: Any) -> bool:
        calls[0] += 1
        return compare(*given)

    monkeypatch.setattr(matching, "equal_but_for_factors", counted)
    assert match(chain, model).layers == dict(lite.layers)
    assert len(lite.layers) == LAYERS
    assert calls[0] <= 3 * LAYERS


def test_places_are_compared_with_few(chain: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoquant.model.survey import survey_graph

    lite, calls, compare = convert(chain), [0], fake_quant_places._has_weight

    def counted(*given: Any) -> bool:
        calls[0] += 1
        return compare(*given)

    monkeypatch.setattr(fake_quant_places, "_has_weight", counted)
    places = fake_quant_places.find_places(chain, survey_graph(chain).layers, lite)
    assert {name: place.operator for name, place in places.found.items()} == dict(lite.layers)
    assert calls[0] <= 2 * LAYERS
