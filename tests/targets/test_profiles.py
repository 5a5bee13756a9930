"""What profiles state: where each fact is from, names that LiteRT knows, and the rules in words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from autoquant.errors import UsageError
from autoquant.targets.profiles.edge_tpu import EDGE_TPU
from autoquant.targets.profiles.espressif import ESP32_P4, ESP32_S3
from autoquant.targets.profiles.ethos_u import ETHOS_U55, ETHOS_U_VELA_3
from autoquant.targets.profiles.profile import DOCUMENTATION, Profile, operators_named
from autoquant.targets.profiles.table import PROFILES, open_profile
from autoquant.targets.table import TARGETS

ALL = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


@ALL
def test_every_profile_says_what_it_was_taken_from(profile: Profile) -> None:
    assert profile.sources
    for source in profile.sources:
        assert source.title and source.version
        assert re.fullmatch(r"https://[\w.-]+/[\w./-]*", source.url)


@ALL
def test_every_profile_says_what_is_not_known(profile: Profile) -> None:
    assert profile.not_known and all(profile.not_known)
    assert "no device" in profile.checked
    assert (profile.checked == DOCUMENTATION) == (profile.name not in ("ethos-u55", "ethos-u85"))


@ALL
def test_operators_are_those_of_litert(profile: Profile, tensorflow: None) -> None:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    named = (profile.operators or frozenset()) | (profile.per_channel or frozenset()) | (profile.int16 or frozenset())
    for limit in profile.limits:
        named |= getattr(limit, "operators", frozenset())
    assert named <= {name for name in vars(BuiltinOperator) if not name.startswith("_")}


@ALL
def test_every_rule_is_a_line(profile: Profile) -> None:
    rules = list(profile.rules())
    assert len(set(rules)) == len(rules) >= 6
    for rule in rules:
        assert rule == rule.strip() and not rule.endswith(".") and "\n" not in rule
    assert [limit.words for limit in profile.limits] == rules[len(rules) - len(profile.limits) :]


def test_rules_in_words() -> None:
    rules = list(ESP32_S3.rules())
    assert "activations must be symmetric, without an offset" in rules
    assert "all scales must be powers of two" in rules
    assert "weights with a scale for every channel: none" in rules
    assert "operators that it cannot take are run by nothing" in rules
    assert "weights with a scale for every channel: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED" in ESP32_P4.rules()
    assert "inputs and outputs: int8" in EDGE_TPU.rules()
    assert "nothing may stay in float" in EDGE_TPU.rules()
    assert "what stays in float is run by the CPU" in ETHOS_U55.rules()
    assert (
        "weights with a scale for every channel: CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV" in ETHOS_U_VELA_3.rules()
    )


def test_a_profile_without_sources_or_types_is_none() -> None:
    with pytest.raises(ValueError, match="profile edgetpu must name its sources"):
        replace(EDGE_TPU, sources=())
    with pytest.raises(ValueError, match="io must be some of float32, int8"):
        replace(EDGE_TPU, io=("uint8",))


def test_channels_of_which_nothing_is_said_are_possible() -> None:
    assert EDGE_TPU.may_have_channels("CONV_2D")
    assert ETHOS_U_VELA_3.may_have_channels("CONV_2D") and not ETHOS_U_VELA_3.may_have_channels("FULLY_CONNECTED")
    assert not ESP32_S3.may_have_channels("CONV_2D")


def test_opened_by_name() -> None:
    assert all(open_profile(name).name == name for name in PROFILES)
    with pytest.raises(UsageError, match=r"--profile: unknown 'ethos-u5': there are .*; did you mean 'ethos-u85'"):
        open_profile("ethos-u5")
    with pytest.raises(UsageError, match=r"unknown 'zzz': .*; `autoquant guide profiles` says what each is"):
        open_profile("zzz")


def test_operators_named() -> None:
    assert operators_named(" ADD  MUL ADD") == {"ADD", "MUL"}


def test_only_targets_of_tflite_files_take_profiles() -> None:
    assert [name for name, target in TARGETS.items() if target.takes_profile] == ["litert"]
