"""Plans that equalize, through searches, exports and `quantize`: one more model, made when it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.repairs.equalization import equalized

SIZES = np.array([1.0, 40.0, 0.02, 300.0], np.float32)
SPACE = """
version = 1
[global]
act_algo = ["minmax"]
channel_wise = [false]
equalize = {equalize}
"""


@pytest.fixture(scope="session")
def unequal(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a ReLU behind `conv`, whose channels have sizes that `depthwise` mends.

    The last bias centers the scores, as that of the tiny model does.
    """
    path = tmp_path_factory.mktemp("unequal") / "unequal.pb"
    write(path, tiny.weights, np.zeros(3, np.float32))
    images = np.load(tiny.calibration)["x"]
    model = open_model(path)
    mean = open_engine("tensorflow").open_graph(model.program)({"image": images})["scores"].mean(axis=0)
    write(path, tiny.weights, -mean)
    return path


def write(path: Path, own: Any, bias: Any) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 2), name="image")
        t = tf.nn.conv2d(image, own["conv"] * SIZES, 1, "SAME", name="conv")
        t = tf.nn.relu(tf.nn.bias_add(t, own["conv_bias"] * SIZES))
        t = tf.nn.depthwise_conv2d(t, own["depthwise"] / SIZES[:, None], (1, 2, 2, 1), "SAME", name="depthwise")
        t = tf.linalg.matmul(tf.reduce_mean(t, (1, 2)), own["dense"], name="dense")
        tf.nn.bias_add(t, bias, name="scores")
    path.write_bytes(graph.as_graph_def().SerializeToString())


def options(tiny: Any, folder: Path, equalize: str) -> dict[str, Any]:
    (folder / "space.toml").write_text(SPACE.format(equalize=equalize))
    return {"calibration": tiny.calibration, "space": folder / "space.toml", "metric": "agreement", "batch_size": 16}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_search_repairs(tiny: Tiny, unequal: Path, tmp_path: Path, target: str) -> None:
    """All layers in INT8, one scale for each weight: without equalization most samples fall to another class."""
    given = {**options(tiny, tmp_path, "[false, true]"), "certify": "none", "target": target}
    result = autoquant.search(unequal, tiny.evaluation, tolerance=0.05, run=tmp_path / "run", **given)
    assert result.verdict is Verdict.MET
    first, *raced, last = result.trials
    assert (first.plan.equalize, last.plan.equalize) == (False, True)
    assert all(trial.plan.equalize and trial.max_samples for trial in raced)
    assert first.drop is not None
    assert first.drop > 0.2
    assert last is result.best
    assert last.drop is not None
    assert last.drop <= 0.05
    assert json.loads((tmp_path / "run/best/config.json").read_text())["autoquant"]["equalize"] is True
    assert (tmp_path / "run" / "statistics-equalized.npz").is_file()


def test_a_search_that_never_equalizes_makes_no_other_model(tiny: Tiny, unequal: Path, tmp_path: Path) -> None:
    given = options(tiny, tmp_path, "[false]")
    autoquant.search(unequal, tiny.evaluation, tolerance=0.05, run=tmp_path / "run", max_trials=1, **given)
    assert not (tmp_path / "run" / "statistics-equalized.npz").exists()


def test_a_best_model_that_was_lost_is_made_again_and_exported(tiny: Tiny, unequal: Path, tmp_path: Path) -> None:
    given = options(tiny, tmp_path, "[true]")
    result = autoquant.search(unequal, tiny.evaluation, tolerance=0.05, run=tmp_path / "run", **given)
    assert result.model is not None
    content = result.model.read_bytes()
    result.model.unlink()
    again = autoquant.resume(tmp_path / "run")
    assert again.model is not None
    assert again.model.read_bytes() == content
    made = autoquant.export(tmp_path / "run", tmp_path / "lite", target="litert")
    assert made.transferred is not None
    assert made.transferred.met


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_quantize_equalizes_as_the_config_says(tiny: Tiny, unequal: Path, tmp_path: Path, target: str) -> None:
    error = {}
    for equalize in (False, True):
        layer = {"weight_quant_params": {"channel_wise": False}}
        config = {"conv": layer, "depthwise": layer, "dense": {}, "autoquant": {"equalize": equalize}, "batch_num": 4}
        config["dense"] = {"weight_quant_params": {"channel_wise": False}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        out = tmp_path / str(equalize)
        made = autoquant.quantize(
            unequal, tmp_path / "config.json", tiny.calibration, out, target=target, batch_size=16
        )
        engine, model = open_engine(TARGETS[target].runtime), open_target(target).lowered(open_model(unequal))
        images = {"image": np.load(tiny.evaluation)["x"]}
        want = engine.open_graph(model.program)(images)["scores"]
        error[equalize] = (
            np.abs(engine.open_file(made.model, model.program)(images)["scores"] - want).mean() / want.std()
        )
    assert error[True] < 0.05 < 0.2 < error[False]


def test_digests_tell_models_apart(tiny: Tiny, unequal: Path) -> None:
    """By what was looked at; a model without chains stays what it is."""
    target = open_target("litert")
    model = target.lowered(open_model(unequal))
    layers = target.survey(model, {}).by_name
    calibrating = CalibrationRunner(open_engine("litert"), open_data(tiny.calibration, model.inputs), 16)
    digests = {equalized(model, layers, calibrating, number).digest for number in (1, 2, 2)}
    assert len(digests) == 2
    assert model.digest not in digests
    plain = target.lowered(open_model(tiny.model))
    only = {"conv": target.survey(plain, {}).by_name["conv"]}
    assert equalized(plain, only, calibrating, 1) is plain


def test_the_costly_layers_are_those_of_the_equalized_model(tiny: Tiny, unequal: Path, tmp_path: Path) -> None:
    """A tolerance that cannot be met: what each layer alone costs is told, and none of them costs much."""
    given = options(tiny, tmp_path, "[true]")
    result = autoquant.search(unequal, tiny.evaluation, tolerance=0.0, run=tmp_path / "run", **given)
    assert result.verdict is Verdict.MISSED
    assert {name for name, _ in result.costly.layers} <= {"conv", "depthwise", "dense"}
    assert 0 < max(value for _, value in result.costly.layers) < 0.1
