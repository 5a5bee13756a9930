"""Every profile on small networks of every kind of layer: what is written keeps to it, read by the schema alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from lite_networks import LiteNetwork, SavedLite

from autoquant.calibration.plan import LayerPlan, Plan, adapt_plan, check_left_in_float, check_plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import ModelError, PlanError
from autoquant.model.layer import Layer, Survey
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.targets.litert import LiteRTTarget
from autoquant.targets.profiles.check import check_device, is_quantized, violations
from autoquant.targets.profiles.edge_tpu import EDGE_TPU
from autoquant.targets.profiles.espressif import ESP32_P4, ESP32_S3
from autoquant.targets.profiles.fit import cannot_run, check_possible, for_profile, left_in_float, narrowing, unfit
from autoquant.targets.profiles.profile import Float, Profile
from autoquant.targets.profiles.table import PROFILES, open_profile

ALL = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
IMAGE = (1, 8, 8, 4)
WEIGHT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
"""Which input of an operator is its weight."""
ACTIVATIONS = {**dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), (0,)), "TRANSPOSE_CONV": (2,)}
"""Which are activations: neither weights nor biases."""


def tf() -> Any:
    import tensorflow

    return tensorflow


def weight(*shape: int) -> Any:
    return tf().constant(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def convolved(x: Any) -> Any:
    return tf().nn.relu(tf().nn.bias_add(tf().nn.conv2d(x, weight(3, 3, 4, 4), 1, "SAME"), weight(4)))


def depthwise(x: Any) -> Any:
    return tf().nn.relu6(tf().nn.depthwise_conv2d(x, weight(3, 3, 4, 1), (1, 2, 2, 1), "SAME"))


def transposed(x: Any) -> Any:
    return tf().nn.conv2d_transpose(x, weight(2, 2, 5, 4), (1, 16, 16, 5), 2, "SAME")


def dense(x: Any) -> Any:
    return tf().nn.bias_add(tf().linalg.matmul(tf().reshape(x, (1, 256)), weight(256, 3)), weight(3))


def multiplied(x: Any) -> Any:
    x = tf().reshape(convolved(x), (1, 64, 4))
    return tf().linalg.matmul(x, x, transpose_b=True)


def averaged(x: Any) -> Any:
    return tf().nn.avg_pool2d(tf().nn.conv2d(x, weight(1, 1, 4, 4), 1, "SAME"), 2, 2, "VALID")


def joined(x: Any) -> Any:
    """Operators between layers: addition, concatenation, pooling, padding, mean."""
    x = convolved(x)
    x = tf().concat([x + depthwise_again(x), tf().nn.max_pool2d(x, 3, 1, "SAME")], axis=-1)
    return tf().reduce_mean(tf().pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), axis=(1, 2))


def depthwise_again(x: Any) -> Any:
    return tf().nn.depthwise_conv2d(x, weight(3, 3, 4, 1), (1, 1, 1, 1), "SAME")


def softened(x: Any) -> Any:
    return tf().nn.softmax(dense(tf().sigmoid(convolved(x))))


def leaky(x: Any) -> Any:
    return convolved(tf().nn.leaky_relu(convolved(x), 0.125))


def floored(x: Any) -> Any:
    return convolved(tf().floor(convolved(x)))


NETWORKS: Mapping[str, Callable[[Any], Any]] = {
    write.__name__: write
    for write in (convolved, depthwise, transposed, dense, multiplied, averaged, joined, softened, leaky, floored)
}
REFUSED = {("edgetpu", "floored")} | {
    (esp, name) for esp in ("esp32-s3", "esp32-p4") for name in ("transposed", "floored")
}
"""No plan makes a file of these for the device: it lacks the operator, or FLOOR stays in float, which none may."""


@dataclass(frozen=True)
class Fitted:
    """A network, lowered for a profile, with its layers there."""

    target: LiteRTTarget
    model: Model
    survey: Survey
    network: LiteNetwork

    @property
    def layers(self) -> Mapping[str, Layer]:
        return self.survey.by_name

    @property
    def lite(self) -> LiteGraph:
        assert isinstance(self.model.program, LiteGraph)
        return self.model.program

    def plan(self, **settings: Any) -> Plan:
        asked = LayerPlan(MinMax(), **settings)
        return Plan(
            {name: layer_plan(layer, asked) for name, layer in self.layers.items()}, float_operators=frozenset()
        )

    def saved(self, path: Path, plan: Plan) -> SavedLite:
        check_left_in_float(plan, self.layers)
        self.target.compiler(self.model, self.layers, self.network.statistics).compile(plan, path)
        return SavedLite(path.read_bytes())


@pytest.fixture(scope="module")
def networks(lite_network: Callable[..., LiteNetwork]) -> Callable[[str], LiteNetwork]:
    made: dict[str, LiteNetwork] = {}

    def named(name: str) -> LiteNetwork:
        if name not in made:
            write = NETWORKS[name]
            made[name] = lite_network(lambda x: tf().identity(write(x), name="y"), IMAGE)
        return made[name]

    return named


def fitted(network: LiteNetwork, profile: Profile) -> Fitted:
    target = LiteRTTarget(profile.io[-1], profile)
    model = target.lowered(network.model)
    return Fitted(target, model, target.survey(model, {}), network)


def broken_rules(saved: SavedLite, profile: Profile) -> set[str]:
    """What of a file breaks a profile, by the objects of the schema, with nothing of the code that is tested."""
    found: set[str] = set()
    tensors = saved.graph.tensors
    floats = {TensorType.FLOAT32}
    for op in saved.graph.operators:
        kind = flatbuffer.op_name(saved.objects, op)
        types = {tensors[index].type for index in (*op.inputs, *op.outputs) if index >= 0}
        if kind in ("QUANTIZE", "DEQUANTIZE"):
            continue
        if types & floats:
            if profile.in_float is Float.NOTHING and profile.takes_tflite:
                found.add("float")
            continue
        if profile.in_float is not Float.NOTHING and profile.operators is not None and TensorType.INT8 in types:
            found |= set() if kind in profile.operators else {f"operator {kind}"}
        if kind in WEIGHT and (profile.per_channel is not None and kind not in profile.per_channel):
            found |= {"channels"} if len(tensors[op.inputs[WEIGHT[kind]]].quantization.scale) > 1 else set()
        activations = [op.inputs[place] for place in ACTIVATIONS.get(kind, range(len(op.inputs)))]
        for index in (*activations, *op.outputs):
            tensor = tensors[index]
            if tensor.type != TensorType.INT8:
                continue
            if profile.symmetric and any(tensor.quantization.zeroPoint):
                found.add("offset")
        for index in (*op.inputs, *op.outputs):
            scales = None if index < 0 or tensors[index].quantization is None else tensors[index].quantization.scale
            powers = scales is None or tensors[index].type != TensorType.INT8 or all(map(is_power, scales))
            if profile.power_of_two and not powers:
                found.add("power")
    ends = {tensors[index].type for index in (*saved.graph.inputs, *saved.graph.outputs)}
    if "float32" not in profile.io and ends & floats:
        found.add("ends")
    signatures = [list(tensor.shapeSignature) for tensor in tensors if tensor.shapeSignature is not None]
    if profile.fixed_sizes and any(-1 in signature for signature in signatures):
        found.add("open")
    return found


def is_power(scale: float) -> bool:
    exponent = np.log2(np.float64(scale))
    return bool(exponent == np.rint(exponent))


@pytest.mark.parametrize("channel_wise", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
@ALL
def test_what_is_written_keeps_to_the_profile(
    networks: Callable[[str], LiteNetwork], profile: Profile, name: str, channel_wise: bool, tmp_path: Path
) -> None:
    network = networks(name)
    try:
        fit = fitted(network, profile)
    except ModelError as error:
        assert profile.in_float is Float.NOTHING and f"profile {profile.name}" in str(error)
        return
    plan = fit.plan(channel_wise=channel_wise)
    saved = fit.saved(tmp_path / "int8.tflite", plan)
    assert broken_rules(saved, profile) == set()
    assert violations(saved.content, profile) == ()
    assert is_quantized(saved.content) and not is_quantized(network.lite.content)
    for name, settings in plan.int8.items():
        kind = fit.lite.kind(fit.lite.layers[name])
        if kind in WEIGHT and channel_wise and profile.may_have_channels(kind):
            assert settings.channel_wise, "no more is narrowed than the device asks for"
    check_plan(plan, fit.layers)


def test_which_models_are_refused(networks: Callable[[str], LiteNetwork]) -> None:
    found = set()
    for profile in PROFILES.values():
        for name in NETWORKS:
            try:
                fitted(networks(name), profile)
            except ModelError:
                found.add((profile.name, name))
    assert found == REFUSED


@ALL
def test_without_the_profile_files_break_it(
    networks: Callable[[str], LiteNetwork], profile: Profile, tmp_path: Path
) -> None:
    """Both readers agree on what the default plan, per channel, asymmetric and with inputs in float, breaks."""
    words = {"has an offset": "offset", "no power of two": "power", "scales, and may": "channels", "in float": "float"}
    words |= {"is float32": "ends", "is open": "open", "none of the operators": "operator"}
    for name in NETWORKS:
        network = networks(name)
        saved = network.saved(tmp_path / "default.tflite")
        told = violations(saved.content, profile)
        kinds = {kind for one in told for word, kind in words.items() if word in one.what}
        independent = {rule.split()[0] for rule in broken_rules(saved, profile)}
        if not profile.takes_tflite:  # where a table of its own says what a file in float becomes
            assert independent - {"operator"} <= kinds | {"float"}
        else:
            assert kinds == independent


def test_what_breaks_a_profile_is_named(networks: Callable[[str], LiteNetwork], tmp_path: Path) -> None:
    saved = networks("convolved").saved(tmp_path / "default.tflite")
    found = check_device(saved.content, open_profile("esp32-s3"))
    assert {one.what for one in found.violations if "weight" in one.what} == {
        "CONV_2D: its weight has 4 scales, and may have one"
    }
    assert found.verdict.startswith("the file breaks profile esp32-s3: ")
    assert found.facts()["violations"][0].keys() == {"where", "what"}
    assert check_device(saved.content, open_profile("ethos-u85")).verdict == "the file keeps to profile ethos-u85"
    ends = check_device(saved.content, open_profile("edgetpu")).violations
    assert [one.what for one in ends if "is float32" in one.what] == ["is float32, not int8"] * 2


@pytest.mark.parametrize(
    ("profile", "settings", "message"),
    [
        (ESP32_S3, {"asymmetric": False, "power_of_two": True}, "channel_wise must be false for layer type Conv2D"),
        (ESP32_P4, {"power_of_two": True}, "asymmetric must be false on profile esp32-p4; set it to false"),
        (
            ESP32_P4,
            {"asymmetric": False},
            "power_of_two must name it: .* on profile esp32-p4",
        ),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(
    networks: Callable[[str], LiteNetwork], profile: Profile, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fit = fitted(networks("convolved"), profile)
    (name,) = fit.layers
    asked = Plan({name: LayerPlan(MinMax(), channel_wise=True, **settings)}, float_operators=frozenset())
    with pytest.raises(PlanError, match=message) as caught:
        check_plan(asked, fit.layers)
    assert str(caught.value).startswith(f"{name}: ") and f"profile {profile.name}" in str(caught.value)
    compiler = fit.target.compiler(fit.model, fit.layers, fit.network.statistics)
    with pytest.raises(PlanError, match=message):
        compiler.compile(asked, tmp_path / "refused.tflite")
    assert not (tmp_path / "refused.tflite").exists()
    adapted = adapt_plan(asked, fit.layers)
    assert adapted.changes
    check_plan(adapted.plan, fit.layers)


def test_a_fully_connected_layer_with_channels_is_refused_where_only_convolutions_have_them(
    networks: Callable[[str], LiteNetwork],
) -> None:
    fit = fitted(networks("dense"), PROFILES["ethos-u-vela3"])
    (name,) = fit.layers
    with pytest.raises(PlanError, match=r"channel_wise must be false for layer type .* on profile ethos-u-vela3"):
        check_plan(Plan({name: LayerPlan(MinMax())}), fit.layers)
    (settings,) = fitted(networks("convolved"), PROFILES["ethos-u-vela3"]).plan().int8.values()
    assert settings.channel_wise


def test_what_must_be_int8_may_not_stay_in_float(networks: Callable[[str], LiteNetwork]) -> None:
    fit = fitted(networks("joined"), EDGE_TPU)
    first, *others = fit.layers
    plan = fit.plan()
    left = replace(plan, layers={**plan.layers, first: None})
    with pytest.raises(PlanError, match=f"{first}: stays in float, but profile edgetpu leaves nothing in float"):
        check_left_in_float(left, fit.layers)
    with pytest.raises(PlanError, match=r"float_operators: 'y' stays in float, but profile edgetpu leaves nothing"):
        check_left_in_float(replace(plan, float_operators=frozenset({"y"})), fit.layers)
    check_left_in_float(plan, fit.layers)
    adapted = adapt_plan(left, fit.layers)
    assert f"{first}: in INT8, as profile edgetpu leaves nothing in float" in adapted.changes
    assert set(adapted.plan.int8) == {first, *others}
    elsewhere = fitted(networks("joined"), PROFILES["ethos-u55"])
    check_left_in_float(replace(plan, layers=dict.fromkeys(elsewhere.layers)), elsewhere.layers)


def test_what_a_device_cannot_take_is_no_layer(networks: Callable[[str], LiteNetwork]) -> None:
    """A batched product on the Ethos-U of before stays in float, on the CPU, with the reason in the survey."""
    profile = PROFILES["ethos-u-vela3"]
    fit = fitted(networks("multiplied"), profile)
    (one,) = [one for one in fit.survey.rejected if one.op.startswith("BatchMatMul")]
    assert one.reason == "profile ethos-u-vela3: it is none of the operators that the device takes"
    assert [kind for kind in map(fit.lite.kind, fit.lite.layers.values()) if kind == "BATCH_MATMUL"]
    assert all(fit.lite.kind(fit.lite.layers[name]) != "BATCH_MATMUL" for name in fit.layers)
    (found,) = unfit(networks("multiplied").lite, profile)
    assert (found.kind, found.reason) == ("BATCH_MATMUL", "it is none of the operators that the device takes")
    assert found in cannot_run(networks("multiplied").lite, profile)


def test_results_with_an_offset_stay_in_float_where_none_may_have_one(
    networks: Callable[[str], LiteNetwork], tmp_path: Path
) -> None:
    fit = fitted(networks("softened"), ESP32_S3)
    saved = fit.saved(tmp_path / "int8.tflite", fit.plan())
    assert "SOFTMAX*" in saved.kinds and "LOGISTIC*" in saved.kinds
    plain = networks("softened").saved(tmp_path / "plain.tflite")
    assert "LOGISTIC" in plain.kinds


def test_refused_where_nothing_else_runs(networks: Callable[[str], LiteNetwork]) -> None:
    with pytest.raises(ModelError, match=r"esp32-s3 has no operator for, .*'y' \(TRANSPOSE_CONV\): it is none of"):
        fitted(networks("transposed"), ESP32_S3)
    with pytest.raises(ModelError, match=r"edgetpu leaves nothing in float, in which these stay: .*\(FLOOR\)"):
        fitted(networks("floored"), EDGE_TPU)
    assert [one.kind for one in left_in_float(networks("floored").lite)] == ["FLOOR"]


def test_sizes_beyond_the_batch_must_be_fixed(lite_network: Callable[..., LiteNetwork]) -> None:
    def write(x: Any) -> Any:
        return tf().identity(convolved(x), name="y")

    any_size = lite_network(write, (None, None, None, 4))
    with pytest.raises(ModelError, match=r"sizes beyond the batch are open, and profile edgetpu wants .*: x"):
        check_possible(any_size.lite, EDGE_TPU)
    check_possible(any_size.lite, PROFILES["ethos-u55"])


def test_a_batch_that_is_open_becomes_one(lite_network: Callable[..., LiteNetwork], tmp_path: Path) -> None:
    def write(x: Any) -> Any:
        return tf().identity(convolved(x), name="y")

    many = lite_network(write, (None, 8, 8, 4))
    for profile, sizes in ((EDGE_TPU, [1, 8, 8, 4]), (PROFILES["ethos-u55"], [-1, 8, 8, 4])):
        fit = fitted(many, profile)
        saved = fit.saved(tmp_path / f"{profile.name}.tflite", fit.plan())
        given = saved.tensor(saved.graph.inputs[0])
        stated = given.shape if given.shapeSignature is None else given.shapeSignature
        assert list(stated) == sizes
    one = SavedLite((tmp_path / "edgetpu.tflite").read_bytes())
    assert one.run(many.x[:1])["y"].shape == (1, 8, 8, 4)


def test_what_is_narrowed(networks: Callable[[str], LiteNetwork]) -> None:
    def told(name: str, profile: Profile) -> list[str]:
        fit = fitted(networks(name), profile)
        return list(narrowing(fit.lite, fit.survey.layers, profile))

    assert told("joined", ESP32_S3) == [
        "channel_wise is false for CONV_2D, DEPTHWISE_CONV_2D",
        "asymmetric is false for all layers",
        "power_of_two is true for all layers",
        "quant_enable is true for all layers",
    ]
    assert told("dense", PROFILES["ethos-u-vela3"]) == ["channel_wise is false for FULLY_CONNECTED"]
    assert told("joined", PROFILES["ethos-u55"]) == []
    assert told("joined", EDGE_TPU) == ["quant_enable is true for all layers"]


def test_the_model_itself_stays_as_it_is(networks: Callable[[str], LiteNetwork]) -> None:
    before = networks("multiplied").lite
    after = for_profile(before, PROFILES["ethos-u-vela3"])
    assert after.content is before.content and not before.float_only and after.float_only
