"""Rounding of quantization-aware training that is removed on opening, from graphs and from .tflite files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal
from quantization_aware import (
    Rounding,
    fake,
    fake_by_arguments,
    fake_by_its_values,
    pair,
    quantize_and_dequantize,
    same,
    trained,
)

from autoquant.model.fake_quants import rounded_activations, without_fakes
from autoquant.model.graph import Graph
from autoquant.model.normalize import normalize
from autoquant.model.open import open_model

RUN = Callable[..., list[Any]]


@pytest.fixture
def weight() -> Any:
    return normal(np.random.default_rng(0), 3, 3, 2, 4)


@pytest.fixture
def x() -> Any:
    return 3 * normal(np.random.default_rng(1), 1, 4, 4, 2)


KINDS = [fake, fake_by_its_values, fake_by_arguments, quantize_and_dequantize, pair]


@pytest.mark.parametrize("rounding", KINDS)
def test_activations_are_floats_and_weights_keep_their_grid(
    rounding: Rounding, weight: Any, x: Any, build: Callable[..., Graph], run: RUN
) -> None:
    graph = build(lambda: trained(weight, rounding))
    assert len(rounded_activations(graph)) == 3
    plain = normalize(without_fakes(graph))
    assert {node.op for node in plain.nodes.values()} == {"Const", "Conv2D", "Identity", "Placeholder", "Relu"}
    wanted = tf.nn.relu(tf.nn.conv2d(x, fake(weight), 1, "SAME"))
    np.testing.assert_allclose(run(plain, {"x": x})[0], wanted, atol=1e-5)


def test_an_output_that_is_rounded_keeps_its_name(x: Any, build: Callable[..., Graph], run: RUN) -> None:
    def write() -> None:
        tf.quantization.fake_quant_with_min_max_args(tf.compat.v1.placeholder(tf.float32, name="x"), name="y")

    graph = build(write)
    np.testing.assert_array_equal(run(without_fakes(graph), {"x": x})[0], x)


def test_opening_says_how_many(weight: Any, tmp_path: Path, build: Callable[..., Graph]) -> None:
    path = tmp_path / "qat.pb"
    for rounding, count in ((fake, 3), (same, 0)):
        path.write_bytes(build(lambda r=rounding: trained(weight, r)).to_graph_def().SerializeToString())
        notes = open_model(path, outputs=["y"]).notes
        assert len(notes) == bool(count)
        assert all(f"removed from {count} activations" in note for note in notes)
