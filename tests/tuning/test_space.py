import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, check_plan
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile
from autoquant.errors import SpaceError
from autoquant.formats.space_toml import load_space, parse_space, presets
from autoquant.model.layers import Layer
from autoquant.tuning.space import SearchSpace, label


def layer(name: str, op: str) -> Layer:
    return Layer(name, op, "x", f"{name}/w", (3, 3, 2, 4), (3,), None, None, None)


LAYERS = [
    layer("conv1", "Conv2D"),
    layer("conv2", "Conv2D"),
    layer("block/dw", "DepthwiseConv2dNative"),
    layer("fc", "MatMul"),
]


def space(text: str, *, batches: int = 100, layers: list[Layer] = LAYERS) -> SearchSpace:
    return SearchSpace(parse_space(text, "my.toml"), layers, batches=batches)


def settings(text: str, name: str) -> LayerPlan | None:
    """What a layer gets when every choice is the first."""
    return space(text).plan({}).layers[name]


@pytest.mark.parametrize("name", ["default", "quick", "thorough", "skip_only"])
def test_presets(name: str):
    assert name in presets()
    offered = SearchSpace(load_space(name), LAYERS, batches=100)
    by_name = {one.name: one for one in LAYERS}
    starts = list(offered.starts())
    assert starts
    for start in starts:
        assert set(start.parameters) == set(offered.dimensions)
        plan = offered.plan(start.parameters)
        check_plan(plan, by_name)
        assert len(plan.int8) == len(LAYERS)
    for choices in offered.dimensions.values():
        assert len(set(choices)) == len(choices) >= 2
    assert all(f"{one.name}:quant_enable" in offered.dimensions for one in LAYERS)


def test_nothing_to_choose_is_amcts_default():
    only = space("")
    assert only.dimensions == {}
    assert [(start.parameters, start.why) for start in only.starts()] == [({}, "all INT8")]
    plan = only.plan({})
    assert plan.batch_num == 1
    assert plan.layers == {
        **dict.fromkeys(("conv1", "conv2", "block/dw"), LayerPlan(Ifmr(), asymmetric=True, channel_wise=True)),
        "fc": LayerPlan(Ifmr(), asymmetric=True, channel_wise=False),
    }


def test_a_dimension_with_one_choice_is_none():
    offered = space(
        "[global]\nbatch_num = [4]\nasymmetric = false\n[layer]\nact_algo = ['minmax']\nquant_enable = true"
    )
    assert offered.dimensions == {}
    assert offered.plan({}).layers["conv1"] == LayerPlan(MinMax(), asymmetric=False)


@pytest.mark.parametrize(("batches", "expected"), [(100, (16, 4, 1)), (10, (10, 4, 1)), (3, (3, 1)), (1, (1,))])
def test_no_more_batches_than_there_are(batches: int, expected: tuple[int, ...]):
    offered = space("[global]\nbatch_num = [16, 4, 1]", batches=batches)
    assert offered.batch_nums == expected
    assert offered.dimensions.get("batch_num", expected) == expected
    assert offered.plan({}).batch_num == expected[0]


def test_matmul_is_never_channel_wise():
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


def test_a_choice_that_concerns_no_layer_is_no_dimension():
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
def test_overrides(overrides: str, expected: tuple[bool, ...]):
    """(asymmetric, channel_wise) of conv1, channel_wise of conv2 and of block/dw."""
    text = f"[global]\nasymmetric = true\n[layer]\nchannel_wise = false\n{overrides}"
    first, second, third = (settings(text, name) for name in ("conv1", "conv2", "block/dw"))
    assert first and second and third
    assert (first.asymmetric, first.channel_wise, second.channel_wise, third.channel_wise) == expected


def test_an_override_frees_a_layer_from_the_models_choice():
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
    ("[layer]\nquant_enable = false", "my.toml: leaves every layer in float; allow quant_enable = true"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_spaces_that_do_not_fit(text: str, message: str):
    with pytest.raises(SpaceError) as caught:
        space(text)
    assert str(caught.value).startswith(message)


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
ACTIVATIONS = {
    "percentile fraction=0.999": Percentile(0.999),
    "percentile fraction=0.9999": Percentile(0.9999),
    "ifmr": Ifmr(),
    "minmax": MinMax(),
}


def test_dimensions():
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


def test_the_first_starts_are_all_int8_with_every_combination_of_globals():
    offered = space(RICH)
    starts = list(offered.starts())
    combinations = list(itertools.product((8, 1), (False, True)))
    for start, (batch_num, asymmetric) in zip(starts, combinations, strict=False):
        plan = offered.plan(start.parameters)
        assert plan.batch_num == batch_num
        expected = LayerPlan(Percentile(0.999), asymmetric, channel_wise=False)
        assert plan.layers == {"conv1": expected, "conv2": None, "block/dw": expected, "fc": expected}
    assert starts[1].why == "all INT8: 8 batches, asymmetric"


def test_later_starts_change_one_setting_of_all_layers():
    offered = space(RICH)
    later = [offered.plan(start.parameters) for start in list(offered.starts())[4:]]
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


def test_starts_are_all_different_and_of_the_kind_that_was_offered():
    offered = space(RICH)
    starts = list(offered.starts())
    assert len({tuple(sorted(start.parameters.items())) for start in starts}) == len(starts)
    assert len({start.why for start in starts}) == len(starts)
    for start, (name, choices) in itertools.product(starts, offered.dimensions.items()):
        chosen = start.parameters[name]
        # True == 1, but Optuna writes down what it was given.
        assert any(chosen == choice and type(chosen) is type(choice) for choice in choices)


@given(st.data())
def test_the_plan_of_any_parameters(data: st.DataObject):
    offered = space(RICH)
    parameters = {name: data.draw(st.sampled_from(choices), label=name) for name, choices in offered.dimensions.items()}
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
def test_labels_are_unique(fractions: list[float]):
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
def test_labels(setting: Ifmr | MinMax | Percentile, words: str):
    assert label(setting) == words
