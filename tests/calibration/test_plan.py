from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan, adapt_plan, check_plan, layer_plan
from autoquant.calibration.ranges import Entropy, Hfmg, MinMax
from autoquant.errors import PlanError
from autoquant.model.layer import Abilities, Layer


def layer(name: str, op: str) -> Layer:
    return Layer(name, op, ("x",), -1, f"{name}/w", (3, 3, 2, 4), (3,), None, None, None)


def bare(name: str, op: str, *activations: str) -> Layer:
    """A layer without a weight."""
    return Layer(name, op, activations, -1, None, (), (), None, None, None)


LAYERS = {
    "conv1": layer("conv1", "Conv2D"),
    "depthwise": layer("depthwise", "DepthwiseConv2dNative"),
    "fc": layer("fc", "MatMul"),
    "grouped": replace(layer("grouped", "Conv2D"), groups=2),
    "pool": bare("pool", "AvgPool", "x"),
    "attention": bare("attention", "BatchMatMulV2", "x", "y"),
    "add:0": bare("add:0", "AddV2", "x"),
    "add:1": bare("add:1", "AddV2", "y"),
}


def test_int8_and_a_copy_of_what_was_given() -> None:
    given: dict[str, LayerPlan | None] = {"conv1": LayerPlan(), "fc": None}
    plan = Plan(given, 2)
    given.clear()
    assert plan.int8 == {"conv1": LayerPlan()}
    assert plan == Plan({"fc": None, "conv1": LayerPlan()}, 2)
    with pytest.raises(TypeError):
        plan.layers["fc"] = LayerPlan()  # type: ignore[index]


def test_an_input_that_is_not_quantized_is_not_there() -> None:
    """Unlike an operator in float, which a plan names."""
    assert list(Plan({"add:0": None, "conv1": None, "add:1": LayerPlan()}).layers) == ["conv1", "add:1"]


def test_layers_that_need_not_all_values() -> None:
    plans = {"conv1": LayerPlan(Hfmg()), "fc": LayerPlan(MinMax()), "pool": LayerPlan(), "x": LayerPlan(Entropy())}
    assert Plan({**plans, "gone": None}).sketched == {"conv1", "fc"}


@pytest.mark.parametrize("batch_num", [0, -1])
def test_batch_num(batch_num: int) -> None:
    with pytest.raises(ValueError, match=f"batch_num must be greater than zero, got {batch_num}"):
        Plan({}, batch_num)


@pytest.mark.parametrize("bits", [4, 5, 9, 16])
def test_weight_bits(bits: int) -> None:
    with pytest.raises(ValueError, match=f"num_bits of a weight must be 8, 7 or 6, got {bits}"):
        LayerPlan(weight_bits=bits)


@pytest.mark.parametrize("strength", [0.19, 0.81, float("nan")])
def test_migration_strength(strength: float) -> None:
    with pytest.raises(ValueError, match=r"dmq_balancer_param must be in \[0\.2, 0\.8\], got"):
        LayerPlan(dmq=strength)
    assert LayerPlan(dmq=0.2).dmq == 0.2 and LayerPlan(dmq=0.8).dmq == 0.8


def test_weight_algorithm() -> None:
    with pytest.raises(ValueError, match="weight_algorithm must be one of minmax, mse, octav, got arq"):
        LayerPlan(weight_algorithm="arq")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1", LayerPlan(MinMax(), weight_bits=6, dmq=0.5)),
        ("depthwise", LayerPlan(MinMax(), dmq=0.5)),
        ("fc", LayerPlan(MinMax(), channel_wise=False, dmq=0.5)),
        ("grouped", LayerPlan(MinMax(), weight_bits=6)),
        ("pool", LayerPlan(MinMax(), channel_wise=False)),
        ("attention", LayerPlan(MinMax(), asymmetric=False, channel_wise=False)),
        ("add:0", LayerPlan(MinMax(), channel_wise=False)),
    ],
)
def test_settings_apply_as_far_as_the_layer_can_have_them(name: str, expected: LayerPlan) -> None:
    plan = layer_plan(LAYERS[name], LayerPlan(MinMax(), weight_bits=6, dmq=0.5))
    assert plan == expected
    check_plan(Plan({name: plan}), LAYERS)


def test_a_plan_that_the_model_can_follow() -> None:
    check_plan(Plan({"conv1": LayerPlan(), "fc": LayerPlan(channel_wise=False)}), LAYERS)
    check_plan(Plan({"conv1": LayerPlan(), "gone": None}), LAYERS)


WHOLE = LayerPlan(channel_wise=False)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "plan: no layer is to be quantized; switch at least one layer on"),
        ({"conv1": None}, "plan: no layer is to be quantized"),
        (
            {"conv1": None, "conv2": LayerPlan()},
            "conv2: is not a quantizable layer of this model; did you mean 'conv1'?",
        ),
        ({"conv2": LayerPlan()}, "plan: none of its layers is a quantizable layer of this model; is it the config of"),
        (
            {"conv1": None, "zzz": LayerPlan()},
            "zzz: is not a quantizable layer of this model; `autoquant inspect` lists",
        ),
        ({"fc": LayerPlan()}, "fc: channel_wise must be false for layer type MatMul; set it to false"),
        ({"pool": LayerPlan()}, "pool: channel_wise must be false for layer type AvgPool"),
        ({"attention": WHOLE}, "attention: asymmetric must be false: both of its factors are activations; set it to"),
        ({"depthwise": LayerPlan(weight_bits=7)}, "depthwise: weights of 7 bits are for Conv2D only, not for layer"),
        ({"pool": LayerPlan(channel_wise=False, dmq=0.5)}, "pool: layer type AvgPool has no weight to balance; remove"),
        ({"grouped": LayerPlan(dmq=0.5)}, "grouped: a convolution with groups of channels cannot be balanced; remove"),
        ({"add:0": WHOLE, "add:1": WHOLE}, "add:1: 'add:0' of the same operator is quantized already; only one input"),
    ],
)
def test_a_plan_that_it_cannot(layers: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(Plan(layers), LAYERS)
    assert str(caught.value).startswith(message)


ELSEWHERE = {
    **{name: replace(one, abilities=Abilities(True, False, (8,), ("minmax", "octav"))) for name, one in LAYERS.items()},
    "fc": replace(LAYERS["fc"], abilities=Abilities(False, False)),
}
"""The same layers on a target that balances nothing, and that has a choice of weights."""


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"conv1": LayerPlan(weight_bits=6)}, "conv1: weights of 6 bits are not possible on this target; set num_bits"),
        ({"conv1": LayerPlan(dmq=0.5)}, "conv1: it cannot be balanced on this target; remove dmq_balancer_param"),
        (
            {"conv1": LayerPlan(weight_algorithm="mse")},
            "conv1: weights by mse are not possible for layer type Conv2D on this target; set wts_algo to arq_quantize",
        ),
    ],
)
def test_settings_of_another_target_only(layers: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(Plan(layers), ELSEWHERE)
    assert str(caught.value).startswith(message)


def test_a_plan_of_another_target_as_far_as_this_one_can() -> None:
    asked = {
        "conv1": LayerPlan(MinMax(), weight_bits=6, dmq=0.5),
        "depthwise": LayerPlan(Hfmg(), asymmetric=False, weight_algorithm="mse"),
        "fc": LayerPlan(),
        "grouped": None,
        "pool": LayerPlan(channel_wise=False),
        "volume": LayerPlan(),
        "gone": None,
        "pool:0": LayerPlan(channel_wise=False),
    }
    fitted = adapt_plan(Plan(asked, 4, fp16_scales=True, exact=True), ELSEWHERE)
    plans = {
        "conv1": LayerPlan(MinMax()),
        "depthwise": LayerPlan(Hfmg(), asymmetric=False),
        "fc": LayerPlan(channel_wise=False),
        "grouped": None,
        "pool": LayerPlan(channel_wise=False),
    }
    assert fitted.plan == Plan(plans, 4, fp16_scales=True, exact=True)
    assert fitted.changes == (
        "conv1: weights of 8 bits, not 6",
        "conv1: not balanced, instead of dmq 0.5",
        "depthwise: weights by minmax, not mse",
        "fc: one scale for its weight, not one per channel",
        "volume: in float, as this target does not quantize it",
        "pool:0: in float, as this target does not quantize it",
    )


@pytest.mark.parametrize("name", ["pool", "attention", "add:0"])
def test_layers_without_weight_have_no_weight_algorithm(name: str) -> None:
    layer = replace(LAYERS[name], abilities=Abilities(False, False, (8,), ("minmax", "octav")))
    assert layer_plan(layer, LayerPlan(weight_algorithm="octav")).weight_algorithm == "minmax"


def test_factors_of_two_activations_become_symmetric() -> None:
    fitted = adapt_plan(Plan({"attention": LayerPlan(channel_wise=False)}), LAYERS)
    assert fitted.plan.int8 == {"attention": LayerPlan(asymmetric=False, channel_wise=False)}
    assert fitted.changes == ("attention: symmetric, without an offset",)


def test_a_plan_that_fits_is_not_changed() -> None:
    plan = Plan({"conv1": LayerPlan(weight_bits=7, dmq=0.2), "fc": None, "add:1": LayerPlan(channel_wise=False)}, 3)
    fitted = adapt_plan(plan, LAYERS)
    assert (fitted.plan, fitted.changes) == (plan, ())


@pytest.mark.parametrize("layers", [{"volume": LayerPlan()}, {"volume": LayerPlan(), "conv1": None}])
def test_a_plan_of_which_nothing_is_left(layers: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="plan: no layer is to be quantized"):
        adapt_plan(Plan(layers), LAYERS)
