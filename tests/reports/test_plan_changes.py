"""In what two plans differ. Letters stand for layers: upper case has what is tried, lower case has not."""

from __future__ import annotations

from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import MinMax
from autoquant.reports.plan_changes import Change, changes, distance, layers_by_value, same_settings

PLAIN = LayerPlan()
SETTINGS = {
    "dmq": LayerPlan(dmq=0.5),
    "channel_wise": LayerPlan(channel_wise=False),
    "activation": LayerPlan(MinMax()),
    "weight_algorithm": LayerPlan(weight_algorithm="mse"),
}


def plan(letters: str, tried: LayerPlan = SETTINGS["dmq"], **whole: Any) -> Plan:
    return Plan({name.lower(): tried if name.isupper() else PLAIN for name in letters}, **whole)


@pytest.mark.parametrize(
    ("setting", "before", "after"),
    [
        ("dmq", None, 0.5),
        ("channel_wise", True, False),
        ("activation", "ifmr", "minmax"),
        ("weight_algorithm", "minmax", "mse"),
    ],
)
def test_a_setting_of_layers_is_one_change_where_all_change_that_can_have_it(
    setting: str, before: bool | str | None, after: Any
) -> None:
    one, other = plan("abc"), plan("ABc", SETTINGS[setting])
    (change,) = changes(one, other, layers_by_value([one, other]), most=3) or ()
    assert change == Change(setting, before, after, ("a", "b"))
    assert change.reversed == Change(setting, after, before, ("a", "b"))


@pytest.mark.parametrize(
    ("before", "after", "others", "found"),
    [
        ("abc", "Abc", [], ("a",)),  # nothing says that b and c can have it
        ("abc", "Abc", ["aBc"], ("a",)),  # one layer alone is one change as well
        ("abc", "ABc", ["abC"], None),  # c could have it, and has not: neither one layer nor all
        ("aBc", "ABc", [], ("a",)),
        ("Abc", "aBc", [], None),  # one gets it, one loses it
        ("abc", "abc", [], ()),
    ],
)
def test_settings_that_count_as_one_change(
    before: str, after: str, others: list[str], found: tuple[str, ...] | None
) -> None:
    plans = [plan(letters) for letters in (before, after, *others)]
    told = changes(plans[0], plans[1], layers_by_value(plans), most=1)
    assert (None if told is None else tuple(name for one in told for name in one.layers)) == found


def test_a_single_layer_is_told_of_as_one() -> None:
    one, other, third = plan("abc"), plan("Abc"), plan("aBc")
    (change,) = changes(one, other, layers_by_value([one, other, third]), most=1) or ()
    assert change.single
    (change,) = changes(one, other, layers_by_value([one, other]), most=1) or ()
    assert not change.single


def test_settings_of_the_whole_and_no_more_than_most() -> None:
    one, other = plan("ab", batch_num=8), plan("AB", equalize=True, bias_correction="analytic")
    found = changes(one, other, layers_by_value([one, other]), most=4)
    assert {(change.setting, change.before, change.after) for change in found or ()} == {
        ("batch_num", 8, 1),
        ("equalize", False, True),
        ("bias_correction", "none", "analytic"),
        ("dmq", None, 0.5),
    }
    assert changes(one, other, layers_by_value([one, other]), most=3) is None


@pytest.mark.parametrize(
    ("one", "other", "differing", "alike"),
    [
        (plan("abc"), plan("abc"), 0, True),
        (plan("abc"), Plan({"a": PLAIN, "b": None, "c": PLAIN}), 1, True),
        (plan("abc"), plan("Abc", batch_num=2), 2, False),
        (plan("abc"), Plan({"a": None, "b": None, "c": None}, equalize=True), 4, False),
        (plan("A"), Plan({"a": None}), 1, True),  # what is in float has no settings to differ in
    ],
)
def test_distance_and_whether_only_the_layers_in_float_differ(
    one: Plan, other: Plan, differing: int, alike: bool
) -> None:
    assert distance(one, other) == distance(other, one) == differing
    assert same_settings(one, other) == same_settings(other, one) == alike
