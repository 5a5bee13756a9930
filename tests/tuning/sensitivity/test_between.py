"""What INT8 costs between layers: measured losses against NumPy, and files that keep what rounding would destroy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from lite_networks import SavedLite

from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import PlanError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.open import open_model
from autoquant.quantization.affine import Affine
from autoquant.targets.litert_calibration import TensorBetween
from autoquant.targets.table import open_target
from autoquant.tuning.builder import Builder, builder_of_plan
from autoquant.tuning.sensitivity import between
from autoquant.tuning.sensitivity.between import chosen
from autoquant.tuning.sensitivity.divergence import divergences, read_outputs
from autoquant.tuning.sensitivity.likelihoods import OutputReading
from autoquant.tuning.sensitivity.variants import RoundedTensor, rounded_together
from autoquant.tuning.study.workload import Workload

STEP = Affine(0.5, 0)


def tensor_between(tensor: int, layer: str = "", *operators: str) -> TensorBetween:
    return TensorBetween(tensor, STEP, layer, operators)


def test_the_cheapest_stay_in_int8_as_long_as_they_cost_little_together() -> None:
    tensors = [
        tensor_between(1, "", "a", "b"),
        tensor_between(2, "", "b", "c"),
        tensor_between(3, "", "d"),
        tensor_between(4, "", "e"),
    ]
    found = chosen(tensors, {1: 0.6, 2: 0.5, 3: math.inf, 4: 0.1}, budget=1.0)
    assert found.float_operators == {"a", "b", "d"}
    assert found.operators == {
        "a": 0.6,
        "b": 0.6,
        "c": 0.5,
        "d": math.inf,
        "e": 0.1,
    }


def test_what_costs_next_to_nothing_beside_the_layers_stays_in_int8() -> None:
    tensors = [tensor_between(1, "", "a"), tensor_between(2, "", "b"), tensor_between(3, "", "c")]
    assert chosen(tensors, {1: 0.02, 2: 0.04, 3: 0.3}, budget=0.05, worth=0.05).float_operators == {"c"}


def test_the_result_of_a_layer_is_that_layer_s_to_lose() -> None:
    found = chosen([tensor_between(1, "conv", "sum"), tensor_between(2, "", "sum")], {1: math.inf}, budget=1.0)
    assert found.layers == {"conv": math.inf}
    assert found.float_operators == frozenset()


class Network(NamedTuple):
    """A network of TensorFlow in a file, its calibration data, and what is to be built of it."""

    builder: Builder
    plan: Plan
    x: Any

    def saved(self, folder: Path, plan: Plan | None = None) -> SavedLite:
        folder.mkdir()
        return SavedLite(self.builder.build(plan or self.plan, folder).path.read_bytes())

    def error(self, saved: SavedLite) -> float:
        """The error of the output, of each column relative to what that varies by; the largest."""
        program: Any = self.builder.model.program
        want = SavedLite(program.content).run(self.x)["y"]
        change = (saved.run(self.x)["y"] - want).reshape(-1, want.shape[-1])
        return float((np.square(change).mean(axis=0) ** 0.5 / want.reshape(-1, want.shape[-1]).std(axis=0)).max())


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Network]:
    import tensorflow as tf

    def made(write: Callable[[Any], Any], x: Any) -> Network:
        with tf.Graph().as_default() as graph:
            tf.identity(write(tf.compat.v1.placeholder(tf.float32, (None, *x.shape[1:]), name="x")), name="y")
        (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
        np.savez(tmp_path / "data.npz", x=x)
        target, opened = open_target("litert"), open_model(tmp_path / "net.pb")
        data, lowered = open_data(tmp_path / "data.npz", opened.inputs), target.lowered(opened)
        workload = Workload.of(target, lowered, data)
        plan = Plan({name: layer_plan(layer, LayerPlan(MinMax())) for name, layer in workload.layers.items()})
        builder = builder_of_plan(plan, lowered, workload, target, open_engine("litert"), data, batch_size=len(x))
        return Network(builder, plan, x)

    return made


def constant(*shape: int, seed: int = 0) -> Any:
    import tensorflow as tf

    return tf.constant((np.random.default_rng([seed, *shape]).normal(size=shape) / shape[0] ** 0.5).astype(np.float32))


def attention(x: Any, masked: float, *, select: bool) -> Any:
    """Attention whose second half of keys is masked, by a sum or a choice."""
    import tensorflow as tf

    q, k, v = (tf.matmul(x, constant(x.shape[-1], 16, seed=seed), name=name) for seed, name in enumerate("qkv"))
    scores = 4.0 * tf.matmul(q, k, transpose_b=True, name="qk")
    keep = np.arange(x.shape[1]) < x.shape[1] // 2
    if select:
        scores = tf.where(tf.constant(keep), scores, tf.constant(masked, tf.float32))
    else:
        scores = tf.add(scores, tf.constant(np.where(keep, 0.0, masked).astype(np.float32)), name="mask")
    return tf.matmul(tf.matmul(tf.nn.softmax(scores), v, name="pv"), constant(16, 5, seed=9), name="last")


@pytest.mark.parametrize("masked", [-1e4, -1e9])
def test_a_mask_that_is_added_leaves_attention_in_float(
    network: Callable[..., Network], tmp_path: Path, masked: float
) -> None:
    x = np.random.default_rng(1).normal(size=(16, 8, 16)).astype(np.float32)
    net = network(lambda x: attention(x, masked, select=False), x)
    saved = net.saved(tmp_path / "a")
    assert net.error(saved) < 0.1
    assert {"SOFTMAX*", "ADD*"} <= set(saved.kinds)
    assert saved.kinds.count("BATCH_MATMUL") == 2, "what the mask does not touch is INT8"
    everything = replace(net.plan, float_operators=frozenset())
    assert net.error(net.saved(tmp_path / "b", everything)) > 0.4


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("masked", [-3.4e38, -1e9, -1e4])
def test_scores_that_a_mask_replaces_are_integers(
    network: Callable[..., Network], tmp_path: Path, masked: float, bits: int
) -> None:
    """Masked scores get what is 10 below all others, so that these keep their resolution; masked keys weigh nothing."""
    x = np.random.default_rng(1).normal(size=(16, 8, 16)).astype(np.float32)
    net = network(lambda x: attention(x, masked, select=True), x)
    wide = {name: own and replace(own, activation_bits=bits) for name, own in net.plan.layers.items()}
    saved = net.saved(tmp_path / "a", replace(net.plan, layers=wide))
    assert [kind for kind in saved.kinds if kind.endswith("*")] == ["DEQUANTIZE*"] or bits == 16
    assert net.error(saved) < (0.1 if bits == 8 else 0.05)
    op = saved.operator("SELECT_V2")
    affine = saved.tensor(op.outputs[0]).quantization
    lowest = (-(2 ** (bits - 1)) - affine.zeroPoint[0]) * affine.scale[0]
    assert -200.0 < lowest < -10.0


def test_a_mask_of_a_moderate_size_stays_in_int8(network: Callable[..., Network], tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(16, 8, 16)).astype(np.float32)
    saved = network(lambda x: attention(x, -30.0, select=False), x).saved(tmp_path / "a")
    assert "SOFTMAX" in saved.kinds
    assert "ADD" in saved.kinds


def product(x: Any, classes: int = 5) -> Any:
    """Two layers with a product, `t`, between them."""
    import tensorflow as tf

    hidden = tf.matmul(x, constant(16, 32), name="first")
    return tf.matmul(tf.multiply(hidden, tf.sigmoid(hidden), name="t"), constant(32, classes), name="last")


def test_tensors_that_cost_little_together_are_not_measured_one_by_one(
    network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(product, np.random.default_rng(3).normal(size=(32, 16)).astype(np.float32))
    with monkeypatch.context() as patched:
        patched.setattr(between, "divergences", lambda *_, **__: pytest.fail("they are measured one by one"))
        assert net.builder.completed(net.plan).float_operators == frozenset()
    costs = net.builder.measure_between(net.plan)
    assert costs is not None
    assert costs.float_operators == frozenset()
    assert 0.0 < sum(costs.operators.values()) < 0.05


def test_tensors_are_rounded_together_as_numpy_does(network: Callable[..., Network]) -> None:
    net = network(product, np.random.default_rng(3).normal(size=(32, 16)).astype(np.float32))
    lite: Any = net.builder.model.program
    steps = {"x": Affine(0.03125, 5), "t": Affine(0.0625, -7)}
    affines = {lite.tensors[name] if name == "t" else int(lite.subgraph.inputs[0]): one for name, one in steps.items()}
    content = rounded_together(lite, [RoundedTensor(tensor, affine) for tensor, affine in affines.items()])

    def rounded(name: str, values: Any) -> Any:
        scale, zero = steps[name].scale, steps[name].offset
        return (np.clip(np.rint(values / scale) + zero, -128, 127) - zero) * scale

    hidden = rounded("x", net.x.astype(np.float64)) @ np.asarray(constant(16, 32), np.float64)
    # Values of float32 beside the middle between two steps may go to the other one.
    t = rounded("t", hidden / (1.0 + np.exp(-hidden)))
    expected = t @ np.asarray(constant(32, 5), np.float64)
    found = SavedLite(content).run(net.x)["y"]
    assert (np.abs(found - expected).max(axis=1) < 1e-4).mean() > 0.9
    assert np.abs(SavedLite(lite.content).run(net.x)["y"] - expected).max() > 1e-2


def features(x: Any) -> Any:
    """Four features of unlike ranges, joined and normalized before the first layer."""
    import tensorflow as tf

    joined = tf.concat([x[:, 2:], x[:, :2]], axis=1)
    normal = tf.nn.relu6((joined - [0.5, 0.0, 4e4, 50.0]) * [2.0, 0.004, 4e-5, 0.03] + 3.0)
    hidden = tf.nn.relu(tf.matmul(normal, constant(4, 32), name="first"))
    return tf.matmul(hidden, constant(32, 3), name="second")


def test_raw_features_of_unlike_ranges(network: Callable[..., Network], tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    x = random.uniform([0, 20, 0, -500], [8e4, 80, 1, 500], size=(64, 4)).astype(np.float32)
    net = network(features, x)
    saved = net.saved(tmp_path / "a")
    assert net.error(saved) < 0.05
    assert saved.kinds.count("QUANTIZE") == 1, "one, behind what is normalized"
    steps = saved.tensor(saved.operator("QUANTIZE").outputs[0]).quantization.scale
    assert steps[0] < 0.1, "of what the first layer reads, not of the raw features"
    assert "FULLY_CONNECTED*" not in saved.kinds


def test_boxes_beside_scores_in_one_output(network: Callable[..., Network], tmp_path: Path) -> None:
    def write(x: Any) -> Any:
        import tensorflow as tf

        hidden = tf.nn.relu(tf.matmul(x, constant(16, 32), name="first"))
        boxes = 400.0 * tf.matmul(hidden, constant(32, 4), name="boxes")
        return tf.concat([boxes, tf.sigmoid(tf.matmul(hidden, constant(32, 2), name="scores"))], axis=1)

    net = network(write, np.random.default_rng(3).normal(size=(64, 16)).astype(np.float32))
    saved = net.saved(tmp_path / "a", None)
    assert net.error(saved) < 0.1
    assert "CONCATENATION*" in saved.kinds
    assert saved.kinds.count("FULLY_CONNECTED") == 3
    assert net.error(net.saved(tmp_path / "b", replace(net.plan, float_operators=frozenset()))) > 0.5


def test_a_config_says_what_stays_in_float(network: Callable[..., Network], tmp_path: Path) -> None:
    from autoquant.formats.config_json import load_config

    x = np.random.default_rng(1).normal(size=(16, 8, 16)).astype(np.float32)
    net = network(lambda x: attention(x, -1e9, select=False), x)
    first = net.saved(tmp_path / "a")
    plan = load_config(tmp_path / "a" / "config.json", layers=net.builder.workload.layers)
    assert "mask" in (plan.float_operators or ())
    assert net.saved(tmp_path / "b", plan).content == first.content
    with pytest.raises(
        PlanError, match=r"float_operators: no operator of the .tflite makes 'maks'; did you mean 'mask'"
    ):
        net.saved(tmp_path / "c", replace(plan, float_operators=frozenset({"maks"})))
    with pytest.raises(PlanError, match="is the result of layer last; leave the layer in float"):
        net.saved(tmp_path / "d", replace(plan, float_operators=frozenset({"y"})))


def test_what_a_tensor_loses_is_what_numpy_says(network: Callable[..., Network], tmp_path: Path) -> None:
    net = network(product, np.random.default_rng(3).normal(size=(32, 16)).astype(np.float32))
    lite: Any = net.builder.model.program
    assert lite.kind(lite.makers[lite.tensors["t"]]) == "MUL"
    affine = Affine(float(np.float32(0.3)), -7)
    data = open_data(tmp_path / "data.npz", net.builder.model.inputs)
    found = divergences(
        lite, [("t", RoundedTensor(lite.tensors["t"], affine))], data, read_outputs(lite, data, OutputReading())
    )
    t = SavedLite(lite.content).run(net.x, names=("t",))["t"].astype(np.float64)
    rounded = (np.clip(np.rint(t / affine.scale) - 7, -128, 127) + 7) * affine.scale
    weight = np.asarray(constant(32, 5), np.float64)
    p, q = (log_softmax(values @ weight) for values in (t, rounded))
    assert found["t"] == pytest.approx((np.exp(p) * (p - q)).sum(axis=1).mean(), rel=1e-3)
    assert found["t"] > 1e-4


def test_what_is_lost_on_two_samples_is_measured_by_what_all_of_them_vary(
    network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for values in (between.VALUES, 0):
        monkeypatch.setattr(between, "VALUES", values)  # of 0, as few samples as may be: LEAST
        net = network(partial(product, classes=200), np.random.default_rng(3).normal(size=(64, 16)).astype(np.float32))
        measured = net.builder.measure_between(net.plan)
        assert measured is not None
        found.append(sum(measured.operators.values()))
    assert 0.1 * found[0] < found[1] < 10 * found[0]  # of 200 columns some hardly differ between two samples


def log_softmax(z: Any) -> Any:
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
