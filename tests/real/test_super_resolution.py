"""FSRCNN: images of many sizes, one at a time, a metric and data that are functions, and a search that must earn it.

The figures of plain INT8 are checked against a simulation of the network that is written here in TensorFlow and NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from super_resolution import BICUBIC, FACTOR, FP32, INPUT, OUTPUT, Images, images, psnr, resized

import autoquant
from autoquant.calibration.plan import LayerPlan
from autoquant.calibration.ranges import RANGES
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import SearchResult

TOLERANCE = 0.3
LAYERS = range(1, 9)
SPACE = """
version = 1
[global]
batch_num = 13
act_algo = ["minmax", "ifmr"]
channel_wise = [true, false]
[layer]
quant_enable = [true, false]
"""


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    return real_data / "super_resolution"


@pytest.fixture(scope="module")
def set5(folder: Path) -> Images:
    return images(folder / "set5")


@pytest.fixture(scope="module")
def set14(folder: Path) -> Images:
    return images(folder / "set14")


@pytest.fixture(scope="module")
def found(folder: Path, set5: Images, set14: Images, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    place = tmp_path_factory.mktemp("super_resolution")
    (place / "space.toml").write_text(SPACE)
    return autoquant.search(
        folder / "FSRCNN_x3.pb",
        set5,
        calibration=set14,
        metric=psnr,
        outputs=(OUTPUT,),
        batch_size=1,
        tolerance=TOLERANCE,
        space=place / "space.toml",
        max_trials=16,
        run=place / "run",
    )


def plain_psnr(path: Path, data: Images) -> float:
    """Of a saved graph: TensorFlow and NumPy, nothing of ours."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return float(np.mean([psnr(session.run(OUTPUT, {INPUT: x}), y) for x, y in data()]))


def test_data_and_metric_give_the_published_figures(folder: Path, set5: Images) -> None:
    assert len({y.shape for _, y in set5.pairs}) == 5
    assert plain_psnr(folder / "FSRCNN_x3.pb", set5) == pytest.approx(FP32, abs=0.01)
    bicubic = [psnr(resized(x[0, :, :, 0], *y.shape[1:])[None, :, :, None], y) for x, y in set5()]
    assert np.mean(bicubic) == pytest.approx(BICUBIC, abs=0.01)


def test_search_meets_the_tolerance_that_plain_int8_misses(found: SearchResult, set5: Images) -> None:
    assert found.baseline == pytest.approx(FP32, abs=0.01)
    assert found.verdict is Verdict.MET
    assert found.best is not None
    assert found.model is not None
    for per_channel in (True, False):
        assert plain_int8(found, per_channel) < FP32 - TOLERANCE
    assert 4 <= found.best.int8_layers < len(LAYERS)
    assert plain_psnr(found.model, set5) == pytest.approx(found.score_tensorflow, abs=1e-4)
    assert found.score is not None
    assert found.score == pytest.approx(found.score_tensorflow, abs=1e-3)  # fake-quantized, on LiteRT
    assert found.score >= found.baseline - TOLERANCE


@pytest.mark.parametrize("per_channel", [True, False])
def test_plain_int8_scores_what_a_simulation_does(
    found: SearchResult, folder: Path, set5: Images, set14: Images, per_channel: bool
) -> None:
    score = plain_int8(found, per_channel)
    assert score == pytest.approx(simulated(folder, set5, set14, per_channel), abs=0.01)


def plain_int8(found: SearchResult, per_channel: bool) -> float:
    """Score of the trial with every layer in INT8 by its least and largest values."""
    wanted = LayerPlan(RANGES["minmax"](), channel_wise=per_channel)
    plain = [trial for trial in found.trials if all(made == wanted for made in trial.plan.layers.values())]
    (score,) = (trial.score for trial in plain if trial.score is not None)  # once; the race is on fewer images
    return score


def simulated(folder: Path, data: Images, calibration: Images, per_channel: bool) -> float:
    """PSNR of the network with the inputs and weights of its convolutions in INT8 by their least and largest values."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString((folder / "FSRCNN_x3.pb").read_bytes())
    values = {n.name: tf.make_ndarray(n.attr["value"].tensor) for n in graph_def.node if n.op == "Const"}
    seen: dict[int, tuple[float, float]] = {}

    def watched(layer: int, x: Any) -> Any:
        low, high = seen.get(layer, (0.0, 0.0))
        seen[layer] = (min(low, float(tf.reduce_min(x))), max(high, float(tf.reduce_max(x))))
        return x

    def rounded(layer: int, x: Any) -> Any:
        low, high = seen[layer]
        step = (high - low) / 255
        zero = -128 - np.rint(low / step)
        return (tf.clip_by_value(tf.round(x / step) + zero, -128, 127) - zero) * step

    filters = {layer: values[f"f{layer}"] for layer in LAYERS}
    for x, _ in calibration():
        network(x, watched, filters, values)
    filters = {layer: rounded_weight(weight, per_channel) for layer, weight in filters.items()}
    return float(np.mean([psnr(network(x, rounded, filters, values).numpy(), y) for x, y in data()]))


def rounded_weight(weight: Any, per_channel: bool) -> Any:
    """On a grid of 127 steps up where the largest value is above 0, of 128 down where it is not."""
    axes = (0, 1, 2) if per_channel else None
    high, low = weight.max(axis=axes).astype(np.float64), weight.min(axis=axes).astype(np.float64)
    step = np.where(np.abs(high) > np.abs(low), np.abs(high) / 127, np.abs(low) / 128)
    return (np.clip(np.rint(weight / step), -128, 127) * step).astype(np.float32)


def network(x: Any, entering: Callable[[int, Any], Any], filters: dict[int, Any], values: dict[str, Any]) -> Any:
    """FSRCNN (Dong et al. 2016); `entering` is what is done to the input of each convolution."""
    import tensorflow as tf

    for layer in LAYERS:
        x = tf.nn.conv2d(entering(layer, x), filters[layer], 1, "SAME")
        if layer < LAYERS[-1]:
            x = x + values[f"b{layer}"]
            x = tf.nn.relu(x) + values[f"alpha{layer}"] * (x - tf.abs(x)) * 0.5
    return tf.nn.depth_to_space(x, FACTOR) + values["b8"]
