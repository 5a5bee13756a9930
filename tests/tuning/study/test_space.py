from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, check_plan
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile
from autoquant.errors import SpaceError
from autoquant.formats.space_toml import load_space, parse_space, presets
from autoquant.model.layer import Abilities, Layer
from autoquant.tuning.study.space import SearchSpace, label


def layer(name: str, op: str) -> Layer:
    return Layer(name, op, ("x",), -1, f"{name}/w", (3, 3, 2, 4), (3,), None, None, None)


def without_weight(name: str, op: str, *reads: str) -> Layer:
    return Layer(name, op, reads, -1, None, (), (), None, None, 0)


LAYERS = [
    layer("conv1", "Conv2D"),
    layer("conv2", "Conv2D"),
    layer("block/dw", "DepthwiseConv2dNative"),
    layer("fc", "MatMul"),
]
ALL_KINDS = [
    *LAYERS,
    layer("volume", "Conv3D"),
    layer("deconv", "Conv2DBackpropInput"),
    layer("attention/out", "BatchMatMul"),
    replace(layer("grouped", "Conv2D"), groups=2),
    without_weight("attention/scores", "BatchMatMulV2", "q", "k"),
    without_weight("average", "AvgPool", "a"),
    without_weight("pool:0", "MaxPool", "p"),
    without_weight("add:0", "AddV2", "p"),
    without_weight("add:1", "AddV2", "q"),
    without_weight("block/add:1", "Add", "q"),
]
"""Layers of all nine kinds, and what is quantized only where it is asked for."""


def space(text: str, *, batches: int = 100, layers: list[Layer] = LAYERS) -> SearchSpace:
    return SearchSpace(parse_space(text, "my.toml"), layers, batches=batches)


def settings(text: str, name: str) -> LayerPlan | None:
    """What a layer gets when every choice is the first."""
    return space(text).plan({}).layers[name]


@pytest.mark.parametrize("name", sorted(presets()))
def test_presets(name: str) -> None:
    offered = SearchSpace(load_space(name), ALL_KINDS, batches=100)
    by_name = {one.name: one for one in ALL_KINDS}
    layers = [one.name for one in ALL_KINDS if not one.tensor_only]
    starts = list(offered.starts())
    assert starts
    for start in starts:
        assert set(start.parameters) == set(offered.dimensions)
        plan = offered.plan(start.parameters)
        check_plan(plan, by_name)
        assert list(plan.int8) == layers
    for choices in offered.dimensions.values():
        assert len(set(choices)) == len(choices) >= 2
    assert all(f"{one}:quant_enable" in offered.dimensions for one in layers)


def test_settings_that_amct_cannot_express_are_not_in_its_space() -> None:
    dimensions = SearchSpace(load_space("amct"), ALL_KINDS, batches=100).dimensions
    words = {str(choice).split(" ")[0] for name, choices in dimensions.items() if ":act" in name for choice in choices}
    assert words == {"ifmr", "hfmg"}


def test_nothing_to_choose_is_amcts_default() -> None:
    only = space("")
    assert only.dimensions == {}
    assert [(start.parameters, start.why) for start in only.starts()] == [({}, "all INT8")]
    plan = only.plan({})
    assert plan.batch_num == 1
    assert plan.layers == {
        **dict.fromkeys(("conv1", "conv2", "block/dw"), LayerPlan(Ifmr(), asymmetric=True, channel_wise=True)),
        "fc": LayerPlan(Ifmr(), asymmetric=True, channel_wise=False),
    }


def test_a_dimension_with_one_choice_is_none() -> None:
    offered = space(
        "[global]\nbatch_num = [4]\nasymmetric = false\n[layer]\nact_algo = ['minmax']\nquant_enable = true"
    )
    assert offered.dimensions == {}
    assert offered.plan({}).layers["conv1"] == LayerPlan(MinMax(), asymmetric=False)


@pytest.mark.parametrize(("batches", "expected"), [(100, (16, 4, 1)), (10, (10, 4, 1)), (3, (3, 1)), (1, (1,))])
def test_no_more_batches_than_there_are(batches: int, expected: tuple[int, ...]) -> None:
    offered = space("[global]\nbatch_num = [16, 4, 1]", batches=batches)
    assert offered.batch_nums == expected
    assert offered.dimensions.get("batch_num", expected) == expected
    assert offered.plan({}).batch_num == expected[0]


def test_matmul_is_never_channel_wise() -> None:
    offered = space("[global]\nchannel_wise = [true, false]")
    assert offered.dimensions == {"channel_wise": (True, False)}
    for choice in (True, False):
        chosen = offered.plan({"channel_wise": choice}).int8
        assert {name: one.channel_wise for name, one in chosen.items()} == {
            "conv1": choice,
            "conv2": choice,
            "block/dw": choice,
            "fc": False,
        }
    assert "fc:channel_wise" not in space("[layer]\nchannel_wise = [true, false]").dimensions


def test_a_choice_that_concerns_no_layer_is_no_dimension() -> None:
    only_matmul = [layer("fc", "MatMul")]
    assert space("[global]\nchannel_wise = [true, false]", layers=only_matmul).dimensions == {}
    everywhere = "[global]\nasymmetric = [true, false]\n[[override]]\nlayers = '*'\nasymmetric = true"
    assert space(everywhere).dimensions == {}
    off = "[layer]\nasymmetric = [true, false]\n[[override]]\nlayers = ['conv*', 'fc']\nquant_enable = false"
    assert list(space(off).dimensions) == ["block/dw:asymmetric"]
    assert space(off).always_float == {"conv1", "conv2", "fc"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("", (True, False, False, False)),
        ("[[override]]\nlayers = 'conv*'\nchannel_wise = true", (True, True, True, False)),
        ("[[override]]\nlayers = 'conv1'\nasymmetric = false", (False, False, False, False)),
        ("[[override]]\ntypes = 'Conv2D'\nasymmetric = false\nchannel_wise = true", (False, True, True, False)),
        (
            "[[override]]\nlayers = '*'\nasymmetric = false\nchannel_wise = true\n"
            "[[override]]\nlayers = 'conv1'\nasymmetric = true",
            (True, True, True, True),
        ),
        (
            "[[override]]\nlayers = 'conv1'\nasymmetric = false\n[[override]]\nlayers = '*'\nasymmetric = true",
            (True, False, False, False),
        ),
    ],
    ids=["none", "pattern", "one layer", "type", "a later one, setting by setting", "a later one wins"],
)
def test_overrides(overrides: str, expected: tuple[bool, ...]) -> None:
    """(asymmetric, channel_wise) of conv1, channel_wise of conv2 and of block/dw."""
    text = f"[global]\nasymmetric = true\n[layer]\nchannel_wise = false\n{overrides}"
    first, second, third = (settings(text, name) for name in ("conv1", "conv2", "block/dw"))
    assert first and second and third
    assert (first.asymmetric, first.channel_wise, second.channel_wise, third.channel_wise) == expected


def test_an_override_frees_a_layer_from_the_models_choice() -> None:
    text = (
        "[global]\nact_algo = ['ifmr', 'minmax']\n"
        "[[override]]\nlayers = 'fc'\nact_algo = ['percentile', 'minmax']\n[override.percentile]\nfraction = 0.99"
    )
    offered = space(text)
    assert offered.dimensions == {
        "activation": ("ifmr", "minmax"),
        "fc:activation": ("percentile fraction=0.99", "minmax"),
    }
    plan = offered.plan({"activation": "minmax", "fc:activation": "percentile fraction=0.99"})
    assert {name: one.activation for name, one in plan.int8.items()} == {
        "conv1": MinMax(),
        "conv2": MinMax(),
        "block/dw": MinMax(),
        "fc": Percentile(0.99),
    }


BAD = [
    ("[[override]]\nlayers = 'conv9*'", "my.toml.override[0]: no layer matches 'conv9*'; layers are conv1"),
    ("[[override]]\nlayers = ['conv1', 'CONV2']", "my.toml.override[0]: no layer matches 'CONV2'"),
    ("[[override]]\ntypes = 'Conv3D'", "my.toml.override[0]: no layer is a 'Conv3D'; this model has Conv2D, Depth"),
    ("[[override]]\nlayers = 'conv1:0'", "my.toml.override[0]: no input matches 'conv1:0'; this model has no Add and"),
    ("[layer]\nquant_enable = false", "my.toml: leaves every layer in float; allow quant_enable = true"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_spaces_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        space(text)
    assert str(caught.value).startswith(message)


def test_inputs_that_do_not_match_are_told_with_those_there_are() -> None:
    with pytest.raises(SpaceError, match=r"no input matches 'pool:1'; inputs are pool:0, add:0, add:1, \.\.\."):
        kinds("[[override]]\nlayers = 'pool:1'")
    with pytest.raises(SpaceError, match=r"no layer matches 'po\*'; inputs .* have a number .*: try 'po\*:0'"):
        kinds("[[override]]\nlayers = 'po*'")
    text = "[layer]\nquant_enable = false\n[[override]]\nlayers = 'pool:0'\nquant_enable = true"
    with pytest.raises(SpaceError, match=r"my\.toml: leaves every layer in float"):
        kinds(text)


def kinds(text: str) -> SearchSpace:
    return space(text, layers=ALL_KINDS)


def test_a_layer_is_offered_only_what_it_can_have() -> None:
    text = "asymmetric = [true, false]\nchannel_wise = [true, false]\ndmq_balancer = [false, 0.5]\n"
    offered = kinds("[layer]\n" + text).dimensions
    asked = {name: [one for one in offered if one.startswith(f"{name}:")] for name in kinds("").layers}
    per_channel = ["asymmetric", "channel_wise", "dmq"]
    own = {
        **dict.fromkeys(("conv1", "conv2", "block/dw", "deconv"), per_channel),
        "volume": ["asymmetric", "dmq"],
        "fc": ["asymmetric", "dmq"],
        "attention/out": ["asymmetric", "dmq"],
        "grouped": ["asymmetric", "channel_wise"],
        "attention/scores": [],
        "average": ["asymmetric"],
    }
    assert asked == {name: [f"{name}:{setting}" for setting in settings] for name, settings in own.items()}
    shared = kinds("[global]\n" + text)
    assert shared.dimensions == {
        "asymmetric": (True, False),
        "channel_wise": (True, False),
        "dmq": ("no dmq", "dmq 0.5"),
    }
    plan = shared.plan({"asymmetric": True, "channel_wise": True, "dmq": "dmq 0.5"})
    check_plan(plan, {one.name: one for one in ALL_KINDS})
    ifmr = Ifmr()
    assert plan.int8["attention/scores"] == LayerPlan(ifmr, asymmetric=False, channel_wise=False)
    assert plan.int8["average"] == LayerPlan(ifmr, asymmetric=True, channel_wise=False)
    assert plan.int8["fc"] == LayerPlan(ifmr, asymmetric=True, channel_wise=False, dmq=0.5)
    assert plan.int8["grouped"] == LayerPlan(ifmr, asymmetric=True, channel_wise=True)
    assert plan.int8["deconv"] == LayerPlan(ifmr, asymmetric=True, channel_wise=True, dmq=0.5)


def test_symmetric_alone_for_a_model_of_products_of_activations() -> None:
    only = [without_weight("scores", "BatchMatMulV2", "q", "k")]
    offered = space("[global]\nasymmetric = [true, false]\ndmq_balancer = [0.5, false]", layers=only)
    assert offered.dimensions == {}
    assert offered.plan({}).int8 == {"scores": LayerPlan(asymmetric=False, channel_wise=False)}
    assert offered.balanced == frozenset()


@pytest.mark.parametrize(
    ("text", "balanced"),
    [
        ("", set()),
        ("[global]\ndmq_balancer = false", set()),
        (
            "[layer]\ndmq_balancer = [false, 0.2]\n[[override]]\nlayers = 'conv*'\nquant_enable = false",
            {"block/dw", "fc"},
        ),
        ("[[override]]\ntypes = ['Conv2D', 'AvgPool', 'MaxPool']\ndmq_balancer = 0.8", {"conv1", "conv2"}),
        (
            "[global]\ndmq_balancer = 0.5\n[[override]]\nlayers = 'fc'\ndmq_balancer = false",
            {"conv1", "conv2", "block/dw"},
        ),
    ],
    ids=["nothing", "off", "only what may be INT8", "only with a weight", "but one"],
)
def test_which_layers_may_be_balanced(text: str, balanced: set[str]) -> None:
    layers = [*LAYERS, *ALL_KINDS[-5:]]
    assert space(text, layers=layers).balanced == balanced


WEIGHTS = ("minmax", "mse", "octav")
ELSEWHERE = [
    replace(LAYERS[0], abilities=Abilities(True, False, (8,), WEIGHTS)),
    replace(LAYERS[1], abilities=Abilities(True, False, (8,), ("minmax", "octav"))),
    replace(LAYERS[3], abilities=Abilities(False, True)),
]
"""Layers of a target with a choice of weights for some of them."""


@pytest.mark.parametrize(
    ("text", "dimensions", "chosen"),
    [
        ("", {}, ("minmax", "minmax", "minmax")),
        (
            "[layer]\nweight_algorithm = ['mse', 'octav', 'minmax']",
            {"conv1:weight_algorithm": ("mse", "octav", "minmax"), "conv2:weight_algorithm": ("minmax", "octav")},
            ("mse", "minmax", "minmax"),
        ),
        (
            "[global]\nweight_algorithm = ['octav', 'minmax']",
            {"weight_algorithm": ("octav", "minmax")},
            ("octav", "octav", "minmax"),
        ),
        (
            "[global]\nweight_algorithm = 'octav'\n[[override]]\nlayers = 'conv2'\nweight_algorithm = 'minmax'",
            {},
            ("octav", "minmax", "minmax"),
        ),
    ],
    ids=["AMCT's", "layer by layer", "once", "an override"],
)
def test_weights_by_the_algorithms_that_a_layer_can_have(
    text: str, dimensions: dict[str, Any], chosen: tuple[str, ...]
) -> None:
    offered = space(text, layers=ELSEWHERE)
    assert offered.dimensions == dimensions
    plan = offered.plan({})
    check_plan(plan, {one.name: one for one in ELSEWHERE})
    assert tuple(settings.weight_algorithm for settings in plan.int8.values()) == chosen


def test_starts_with_each_weight_algorithm() -> None:
    offered = space(
        "[global]\nact_algo = ['minmax', 'ifmr']\n[layer]\nweight_algorithm = ['minmax', 'mse', 'octav']",
        layers=ELSEWHERE,
    )
    starts = list(offered.starts())
    assert [start.why for start in starts] == [
        "all INT8: minmax",
        "all INT8: ifmr",
        "all INT8: weights by mse",
        "all INT8: weights by octav",
    ]
    plans = [offered.plan(start.parameters).int8 for start in starts]
    assert [(plan["conv1"].weight_algorithm, plan["conv2"].weight_algorithm) for plan in plans] == [
        ("minmax", "minmax"),
        ("minmax", "minmax"),
        ("mse", "minmax"),
        ("octav", "octav"),
    ]


def test_weight_algorithms_are_no_dimension_where_there_is_no_choice() -> None:
    for where in ("global", "layer"):
        text = f"[{where}]\nweight_algorithm = ['minmax', 'octav']"
        assert space(text).dimensions == {}
        assert space(text, layers=ELSEWHERE[2:]).dimensions == {}


def test_the_space_for_litert_has_every_weight_algorithm_and_nothing_that_its_kernels_give_for_nothing() -> None:
    dimensions = SearchSpace(load_space("litert"), ELSEWHERE, batches=100).dimensions
    assert dimensions["conv1:weight_algorithm"] == WEIGHTS
    settings = {name.rpartition(":")[2] for name in dimensions}
    repairs = {"equalize", "weight_rounding", "bias_correction"}
    assert settings == {"dmq", "quant_enable", "activation", "weight_algorithm", *repairs}


def test_repairs_of_the_whole_model() -> None:
    offered = space("[global]\nequalize = [true, false]\nbias_correction = ['none', 'analytic', 'empirical']")
    assert offered.dimensions == {"equalize": (True, False), "bias_correction": ("none", "analytic", "empirical")}
    plan = offered.plan({"equalize": False, "bias_correction": "empirical"})
    assert (plan.equalize, plan.bias_correction) == (False, "empirical")
    starts = list(offered.starts())
    chosen = [offered.plan(start.parameters) for start in starts]
    wanted = [(True, "none"), (False, "none"), (True, "analytic"), (True, "empirical")]
    assert [(plan.equalize, plan.bias_correction) for plan in chosen] == wanted
    assert [start.why for start in starts] == [
        "all INT8: equalized, biases not corrected",
        "all INT8: not equalized",
        "all INT8: biases corrected (analytic)",
        "all INT8: biases corrected (empirical)",
    ]


def test_the_rounding_of_weights() -> None:
    offered = space("[global]\nweight_rounding = ['gptq', 'nearest']")
    starts = list(offered.starts())
    assert [offered.plan(start.parameters).weight_rounding for start in starts] == ["gptq", "nearest"]
    words = ["all INT8: weights rounded by gptq", "all INT8: weights rounded to nearest"]
    assert [start.why for start in starts] == words
    assert space("").plan({}).weight_rounding == "nearest"


@pytest.mark.parametrize(
    ("text", "dimensions", "equalize", "bias_correction"),
    [
        ("", {}, False, "none"),
        ("[global]\nequalize = true\nbias_correction = 'analytic'", {}, True, "analytic"),
        (
            "[global]\nbias_correction = ['empirical', 'none']",
            {"bias_correction": ("empirical", "none")},
            False,
            "empirical",
        ),
    ],
)
def test_repairs_that_are_no_choice(
    text: str, dimensions: dict[str, Any], equalize: bool, bias_correction: str
) -> None:
    offered = space(text)
    assert offered.dimensions == dimensions
    plan = offered.plan({})
    assert (plan.equalize, plan.bias_correction) == (equalize, bias_correction)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("[layer]\nquant_enable = true", []),
        ("[[override]]\nlayers = '*'\nquant_enable = true", []),
        ("[[override]]\nlayers = 'pool:0'\nact_algo = 'minmax'", []),
        ("[[override]]\nlayers = 'pool:0'\nquant_enable = [false, true]", ["pool:0"]),
        ("[[override]]\nlayers = '*:1'\nquant_enable = true", ["add:1", "block/add:1"]),
        ("[[override]]\ntypes = ['MaxPool', 'AddV2']\nquant_enable = [true, false]", ["pool:0", "add:0"]),
        ("[[override]]\nlayers = ['add:1', 'add:0']\nquant_enable = true", ["add:0"]),
        (
            "[[override]]\ntypes = 'AddV2'\nquant_enable = true\n[[override]]\nlayers = 'add:0'\nquant_enable = false",
            ["add:1"],
        ),
    ],
    ids=["layers", "all layers", "settings", "one", "second inputs", "types", "one of an operator", "the other one"],
)
def test_inputs_of_operators_are_offered_where_they_are_asked_for(text: str, offered: list[str]) -> None:
    found = kinds(text)
    assert [name for name in found.layers if ":" in name] == offered
    assert found.always_float == frozenset()


TENSORS = """
[layer]
quant_enable = [true, false]
asymmetric = [true, false]
[[override]]
layers = ["pool:0", "add:1"]
quant_enable = [true, false]
[[override]]
layers = "pool:0"
asymmetric = false
"""


def test_plans_and_starts_with_inputs_of_operators() -> None:
    offered = space(TENSORS, layers=[*LAYERS, *ALL_KINDS[-4:]])
    own = {name: choices for name, choices in offered.dimensions.items() if name.count(":") == 2}
    either = (True, False)
    assert own == {"pool:0:quant_enable": either, "add:1:quant_enable": either, "add:1:asymmetric": either}
    starts = list(offered.starts())
    assert [start.why for start in starts] == ["all INT8", "all INT8: symmetric", "all INT8: tensors in float"]
    plans = [offered.plan(start.parameters) for start in starts]
    names = [one.name for one in LAYERS]
    assert [list(plan.int8) for plan in plans] == [[*names, "pool:0", "add:1"]] * 2 + [names]
    assert plans[0].int8["pool:0"] == LayerPlan(asymmetric=False, channel_wise=False)
    assert plans[0].int8["add:1"] == LayerPlan(asymmetric=True, channel_wise=False)
    assert "pool:0" not in plans[2].layers
    for plan in plans:
        check_plan(plan, {one.name: one for one in ALL_KINDS})


def test_inputs_of_operators_are_never_quantized_alone() -> None:
    offered = space(TENSORS, layers=[*LAYERS, *ALL_KINDS[-4:]])
    plan = offered.plan({f"{one.name}:quant_enable": False for one in LAYERS})
    assert not plan.int8
    assert list(plan.layers) == [one.name for one in LAYERS]


RICH = """
[global]
batch_num = [8, 1]
asymmetric = [false, true]
[layer]
quant_enable = [false, true]
act_algo = ["percentile", "ifmr", "minmax"]
channel_wise = [false, true]
[layer.percentile]
fraction = [0.999, 0.9999]
[[override]]
layers = "conv2"
quant_enable = false
"""
ACTIVATIONS: dict[str, Any] = {
    "percentile fraction=0.999": Percentile(0.999),
    "percentile fraction=0.9999": Percentile(0.9999),
    "ifmr": Ifmr(),
    "minmax": MinMax(),
}


def test_dimensions() -> None:
    own = {
        f"{name}:{setting}": choices
        for name in ("conv1", "block/dw", "fc")
        for setting, choices in (
            ("quant_enable", (False, True)),
            ("activation", tuple(ACTIVATIONS)),
            ("channel_wise", (False, True)),
        )
        if (name, setting) != ("fc", "channel_wise")
    }
    assert space(RICH).dimensions == {"batch_num": (8, 1), "asymmetric": (False, True), **own}


def test_the_first_starts_are_all_int8_with_the_preferred_globals_and_each_other_one() -> None:
    offered = space(RICH)
    starts = list(offered.starts())
    settings = [(8, False), (1, False), (8, True)]
    for start, (batch_num, asymmetric) in zip(starts, settings, strict=False):
        plan = offered.plan(start.parameters)
        assert plan.batch_num == batch_num
        expected = LayerPlan(Percentile(0.999), asymmetric, channel_wise=False)
        assert plan.layers == {"conv1": expected, "conv2": None, "block/dw": expected, "fc": expected}
    assert [start.why for start in starts[:3]] == [
        "all INT8: 8 batches, symmetric",
        "all INT8: 1 batch",
        "all INT8: asymmetric",
    ]


def test_later_starts_change_one_setting_of_all_layers() -> None:
    offered = space(RICH)
    later = [offered.plan(start.parameters) for start in list(offered.starts())[3:]]
    first = offered.plan(next(iter(offered.starts())).parameters)
    changed = []
    for plan in later:
        assert plan.batch_num == 8 and set(plan.int8) == set(first.int8)
        assert all(not one.asymmetric for one in plan.int8.values())
        one = plan.int8["conv1"]
        changed.append((one.activation, one.channel_wise))
    ifmr, minmax = Ifmr(), MinMax()
    assert changed == [
        (Percentile(0.9999), False),
        (ifmr, False),
        (minmax, False),
        (Percentile(0.999), True),
    ]


def test_starts_are_all_different_and_of_the_kind_that_was_offered() -> None:
    offered = space(RICH)
    starts = list(offered.starts())
    assert len({tuple(sorted(start.parameters.items())) for start in starts}) == len(starts)
    assert len({start.why for start in starts}) == len(starts)
    for start, (name, choices) in itertools.product(starts, offered.dimensions.items()):
        chosen = start.parameters[name]
        # True == 1, but Optuna writes down what it was given.
        assert any(chosen == choice and type(chosen) is type(choice) for choice in choices)


@given(st.data())
def test_the_plan_of_any_parameters(data: st.DataObject) -> None:
    offered = space(RICH)
    parameters: dict[str, Any] = {
        name: data.draw(st.sampled_from(choices), label=name) for name, choices in offered.dimensions.items()
    }
    expected = {
        name: LayerPlan(
            ACTIVATIONS[parameters[f"{name}:activation"]],
            parameters["asymmetric"],
            parameters.get(f"{name}:channel_wise", False),
        )
        if parameters[f"{name}:quant_enable"]
        else None
        for name in ("conv1", "block/dw", "fc")
    }
    plan = offered.plan(parameters)
    assert plan.layers == {**expected, "conv2": None}
    assert plan.batch_num == parameters["batch_num"]


FRACTION = st.floats(0.5, 1.0, exclude_min=True)


@given(st.lists(FRACTION, min_size=1, max_size=6, unique=True))
def test_labels_are_unique(fractions: list[float]) -> None:
    assert len({label(Percentile(fraction)) for fraction in fractions}) == len(fractions)
    close = math.nextafter(fractions[0], 0.9)
    assert (
        label(Ifmr(max_percentile=fractions[0])) != label(Ifmr(min_percentile=fractions[0])) or fractions[0] == 0.999999
    )
    assert close == fractions[0] or label(Percentile(close)) != label(Percentile(fractions[0]))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (Ifmr(), "ifmr"),
        (MinMax(), "minmax"),
        (Percentile(0.999), "percentile fraction=0.999"),
        (Percentile(0.9999999), "percentile fraction=0.9999999"),
        (Ifmr(0.9999, search_step=0.02), "ifmr max_percentile=0.9999 search_step=0.02"),
    ],
)
def test_labels(setting: Ifmr | MinMax | Percentile, words: str) -> None:
    assert label(setting) == words


def test_16_bits_are_a_choice_of_the_layers_that_can_have_them() -> None:
    able = [replace(LAYERS[0], abilities=Abilities(True, False, activation_bits=(8, 16))), *LAYERS[1:]]
    text = "[layer]\nact_algo = 'minmax'\nactivation_bits = [8, 16]"
    space = SearchSpace(parse_space(text, "a"), able, batches=4)
    bits = {name: choices for name, choices in space.dimensions.items() if name.endswith("activation_bits")}
    assert bits == {"conv1:activation_bits": (8, 16)}
    plan = space.plan({"conv1:activation_bits": 16})
    assert {name: settings.activation_bits for name, settings in plan.int8.items()} == {
        name: 16 if name == "conv1" else 8 for name in plan.int8
    }


def test_16_bits_are_refused_where_no_layer_can_have_them() -> None:
    text = "[global]\nactivation_bits = [8, 16]"
    with pytest.raises(
        SpaceError, match=r"activation_bits 16: no layer .* on this target; remove it, or give --target litert"
    ):
        SearchSpace(parse_space(text, "a"), LAYERS, batches=4)
