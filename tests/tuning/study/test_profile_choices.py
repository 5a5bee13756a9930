"""What a profile leaves of a search space, and how requests take one."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan, adapt_plan, check_left_in_float, check_plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import PlanError, SpaceError, UsageError
from autoquant.formats.space_toml import load_space, parse_space, presets
from autoquant.model.layer import Abilities, Layer
from autoquant.targets.profiles.table import PROFILES
from autoquant.tuning.study.choices import check_target
from autoquant.tuning.study.model_request import InspectRequest
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_toml import toml_text
from autoquant.tuning.study.space import SearchSpace


def layer(name: str, **narrowed: Any) -> Layer:
    can = replace(
        Abilities(per_channel=True, balanceable=False, weight_algorithms=("minmax", "mse")), profile="toy", **narrowed
    )
    return Layer(name, "Conv2D", ("x",), -1, f"{name}/w", (3, 3, 2, 4), (3,), None, None, None, abilities=can)


FREE = layer("free")
SINGLE = layer("single", per_channel=False)
SYMMETRIC = layer("symmetric", asymmetric=False)
POWERS = layer("powers", powers_only=True)
ALWAYS = layer("always", no_float_by="profile toy")
LAYERS = [FREE, SINGLE, SYMMETRIC, POWERS, ALWAYS]
BY_NAME = {one.name: one for one in LAYERS}
ALL = """
[global]
channel_wise = [true, false]
power_of_two = [false, true]
[layer]
quant_enable = [true, false]
asymmetric = [true, false]
act_algo = "minmax"
"""


def space(text: str, layers: list[Layer] = LAYERS) -> SearchSpace:
    return SearchSpace(parse_space(text, "my.toml"), layers, batches=8)


def plans(offered: SearchSpace) -> list[Plan]:
    """The first start, and every other value of each of its choices."""
    first = {name: values[0] for name, values in offered.dimensions.items()}
    others = [{**first, name: value} for name, values in offered.dimensions.items() for value in values]
    return [offered.plan(chosen) for chosen in (first, *others)]


def test_no_choice_breaks_a_rule() -> None:
    for plan in plans(space(ALL)):
        check_plan(plan, BY_NAME)
        check_left_in_float(plan, BY_NAME)
        for name, settings in plan.int8.items():
            assert not (name == "single" and settings.channel_wise)
            assert not (name == "symmetric" and settings.asymmetric)
            assert name != "powers" or settings.power_of_two


@pytest.mark.parametrize("name", sorted(presets()))
def test_presets_keep_to_it(name: str) -> None:
    offered = SearchSpace(load_space(name), LAYERS, batches=100)
    for start in offered.starts():
        plan = offered.plan(start.parameters)
        check_plan(plan, BY_NAME)
        check_left_in_float(plan, BY_NAME)


def test_what_is_not_possible_is_not_offered() -> None:
    offered = space(ALL).dimensions
    assert "free:quant_enable" in offered and "always:quant_enable" not in offered
    assert "free:asymmetric" in offered and "symmetric:asymmetric" not in offered


def test_a_space_that_leaves_in_float_what_may_not_be_is_refused() -> None:
    with pytest.raises(SpaceError, match="leaves 'always' in float, and profile toy leaves nothing in float"):
        space('[layer]\nact_algo = "minmax"\n[[override]]\nlayers = "always"\nquant_enable = false\n')
    space('[layer]\nact_algo = "minmax"\n[[override]]\nlayers = "free"\nquant_enable = false\n')


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("single", {}, "single: channel_wise must be false for layer type Conv2D on profile toy; set it to false"),
        ("symmetric", {}, "symmetric: asymmetric must be false on profile toy; set it to false"),
        ("powers", {}, "powers: power_of_two must name it: all scales are powers of two on profile toy; add it to"),
    ],
)
def test_refused_with_the_way_out(name: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_plan(Plan({name: LayerPlan(MinMax(), asymmetric=True, **asked)}), BY_NAME)
    check_plan(Plan({name: layer_plan(BY_NAME[name])}), BY_NAME)


def test_a_plan_from_elsewhere_is_made_to_fit() -> None:
    given = Plan({name: LayerPlan(MinMax(), asymmetric=True) for name in BY_NAME if name != "always"})
    found = adapt_plan(given, BY_NAME)
    check_plan(found.plan, BY_NAME)
    check_left_in_float(found.plan, BY_NAME)
    assert list(found.changes) == [
        "single: one scale for its weight, not one per channel",
        "symmetric: symmetric, without an offset",
        "powers: scales of powers of two",
        "always: in INT8, as profile toy leaves nothing in float",
    ]


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_for_litert(name: str) -> None:
    io = PROFILES[name].io[0]
    check_target("m.keras", target="litert", io=io, profile=name)
    with pytest.raises(UsageError, match=rf"--profile {name}: .*; give --target litert"):
        check_target("m.keras", profile=name)


def test_a_type_that_the_device_does_not_take() -> None:
    with pytest.raises(UsageError, match=r"--io float32 with --profile edgetpu: .*; give --io int8"):
        check_target("m.keras", target="litert", profile="edgetpu")
    with pytest.raises(UsageError, match=r"--profile: unknown 'edgetp': .*; did you mean 'edgetpu'"):
        check_target("m.keras", target="litert", profile="edgetp")


def test_a_request_keeps_it() -> None:
    asked = SearchRequest(model="m.keras", data="d", target="litert", profile="ethos-u55")
    table = tomllib.loads(toml_text({"request": asked.as_table()}))["request"]
    assert table["profile"] == "ethos-u55"
    assert SearchRequest.from_table(table, "run.toml") == asked
    assert "profile" not in SearchRequest(model="m.keras", data="d", target="litert").as_table()


def test_looking_at_a_model_for_a_device_is_looking_at_its_tflite() -> None:
    asked = InspectRequest(model="m.keras", profile="edgetpu")
    assert (asked.target, asked.io) == ("litert", "int8")
    assert InspectRequest(model="m.keras").target == "tensorflow"
    with pytest.raises(UsageError, match="give --target litert"):
        InspectRequest(model="m.keras", profile="edgetpu", target="tensorflow")
