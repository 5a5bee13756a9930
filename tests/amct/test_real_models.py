"""AMCT's flow on models that others trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant as amct
from autoquant.amct.live_graph import live_activations, read_live
from autoquant.model.shapes import import_graph

CONFIG, RECORD = Path("config.json"), Path("record.txt")
MODELS = {
    "bed/hard.pb": (1, 32, 32, 3),
    "cifar10/resnet8.pb": (1, 32, 32, 3),
    "kws/kws_ref_model.pb": (1, 49, 10, 1),
    "super_resolution/FSRCNN_x3.pb": (1, 17, 23, 1),
    "vww/vww_96.pb": (1, 96, 96, 3),
}
"""Model -> the shape of one batch."""


@pytest.mark.parametrize(("name", "shape"), MODELS.items())
def test_activations_are_the_same_in_the_live_graph(
    real_data: Path, load_pb: Callable[[Path], Any], name: str, shape: tuple[int, ...]
) -> None:
    """Calibration sees tensors of the user's graph, under names of the normalized one."""
    import tensorflow as tf

    graph = load_pb(real_data / name)
    model = read_live(graph)
    layers = model.survey.by_name.values()
    feeds = {f"{model.graph.inputs[0]}:0": np.random.default_rng(2).normal(size=shape)}
    values = []
    for tf_graph in (graph, import_graph(model.graph)):
        with tf.compat.v1.Session(graph=tf_graph) as session:
            values.append(session.run([live_activations(tf_graph, layer) for layer in layers], feeds))
    for live, normalized in zip(*values, strict=True):
        for one, other in zip(live, normalized, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("name", ["kws/kws_ref_model.pb", "cifar10/resnet8.pb"])
def test_the_documented_flow_keeps_the_accuracy(real_data: Path, load_pb: Callable[[Path], Any], name: str) -> None:
    model = real_data / name
    data = [np.load(model.parent / f"{part}.npz") for part in ("calibration", "evaluation")]
    calibration, x, y = data[0]["x"][:64].astype(np.float32), data[1]["x"][:800].astype(np.float32), data[1]["y"][:800]
    graph = load_pb(model)
    original = np.mean(run(graph, np.split(x, 8)).argmax(axis=1) == y)

    graph = load_pb(model)
    amct.create_quant_config(CONFIG, graph, batch_num=2)
    amct.quantize_model(graph, CONFIG, RECORD)
    run(graph, np.split(calibration, 2))
    saved = amct.save_model(model, ["Identity:0"], RECORD, "out/model")

    quantized = np.mean(run(load_pb(saved.model), np.split(x, 8)).argmax(axis=1) == y)
    assert original > 0.7
    assert original - quantized <= 0.01


def run(graph: Any, batches: list[Any]) -> Any:
    import tensorflow as tf

    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        return np.concatenate([session.run("Identity:0", {"input:0": batch}) for batch in batches])
