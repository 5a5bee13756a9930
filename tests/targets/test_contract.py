"""What every target promises, whatever it writes. A new target is a new row."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.calibration.record import LayerRecord
from autoquant.errors import PlanError, RunError
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.model.layers import survey
from autoquant.model.model import open_model
from autoquant.quantization.affine import Affine
from autoquant.targets.tensorflow import TensorFlowTarget

TARGETS = {"tensorflow": (TensorFlowTarget, TensorFlowEngine)}
"""Name -> the target, and an engine that runs what it saves."""


@pytest.fixture(params=sorted(TARGETS))
def pair(request):
    target, engine = TARGETS[request.param]
    assert target.name == request.param
    return target(), engine()


@pytest.fixture(scope="module")
def model(tiny):
    return open_model(tiny.model)


@pytest.fixture(scope="module")
def layers(model):
    return {layer.name: layer for layer in survey(model.graph).layers}


def record_of(*names: str):
    """Coarse but legal scales: inputs within +-16, weights within +-4."""
    step = float(np.float32(0.125))
    return {name: LayerRecord(Affine(step, 0), (float(np.float32(4 / 128)),)) for name in names}


def outputs(pair, model, layers, record, folder, images):
    target, engine = pair
    path = folder / target.file_name("tiny")
    target.save(model.graph, layers, record, path)
    runner = engine.open_file(path, model.graph)
    found = runner({"image": images})
    runner.close()
    return found["scores"]


def test_file_names_belong_to_the_model(pair):
    target, _ = pair
    assert target.file_name("a").startswith("a")
    assert target.file_name("a") != target.file_name("b")


def test_nothing_recorded_is_the_float_model(pair, model, layers, tiny, tmp_path):
    images = np.load(tiny.evaluation)["x"][:20]
    float_scores = pair[1].open_graph(model.graph)({"image": images})["scores"]
    np.testing.assert_allclose(outputs(pair, model, layers, {}, tmp_path, images), float_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", [("conv",), ("depthwise",), ("dense",), ("conv", "depthwise", "dense")], ids=str)
def test_recorded_layers_and_no_others_are_quantized(pair, model, layers, tiny, tmp_path, names):
    """Near the float model, but not it; and every set of layers gives something else."""
    images = np.load(tiny.evaluation)["x"][:40]
    float_scores = pair[1].open_graph(model.graph)({"image": images})["scores"]
    int8 = outputs(pair, model, layers, record_of(*names), tmp_path, images)
    error = np.linalg.norm(int8 - float_scores) / np.linalg.norm(float_scores)
    assert 1e-4 < error < 0.5


def test_the_same_plan_gives_the_same_bytes(pair, model, layers, tmp_path):
    target, _ = pair
    for name in ("one", "two"):
        target.save(model.graph, layers, record_of("conv", "dense"), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_float_graph_is_left_alone(pair, model, layers, tmp_path):
    before = {name: node.SerializeToString(deterministic=True) for name, node in model.graph.nodes.items()}
    pair[0].save(model.graph, layers, record_of("conv", "depthwise", "dense"), tmp_path / "saved")
    assert {name: node.SerializeToString(deterministic=True) for name, node in model.graph.nodes.items()} == before


def test_a_foreign_record_is_refused(pair, model, layers, tmp_path):
    with pytest.raises(PlanError, match="other"):
        pair[0].save(model.graph, layers, record_of("other"), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_disk_that_refuses_leaves_nothing(pair, model, layers, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        pair[0].save(model.graph, layers, record_of("conv"), tmp_path / "file" / "saved")
