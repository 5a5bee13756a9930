from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import (
    CORRECTIONS,
    ROUNDINGS,
    WEIGHT_ALGORITHMS,
    WEIGHT_BITS,
    LayerPlan,
    Plan,
    layer_plan,
)
from autoquant.calibration.ranges import RANGES, Ifmr, MinMax, Percentile
from autoquant.errors import PlanError
from autoquant.formats.codec import json_text
from autoquant.formats.config_json import config_text, load_config, parse_config, save_config
from autoquant.formats.config_reading import GLOBAL
from autoquant.model.layer import Abilities, Layer, Survey
from autoquant.model.model import Fusion

FRACTION = st.floats(0.5, 1.0, exclude_min=True)
IFMR = st.builds(
    lambda most, least, start, width, part: Ifmr(most, least, start, start + width, max(width * part, 1e-9)),
    FRACTION,
    FRACTION,
    st.floats(0.1, 1.0),
    st.floats(0.1, 2.0),
    st.floats(0.01, 0.5),
)
HFMG = st.builds(lambda bins: RANGES["hfmg"](num_of_bins=bins), st.sampled_from([1024, 2048, 4096, 8192]))
SETTING = st.one_of(
    IFMR, HFMG, st.builds(Percentile, FRACTION), st.sampled_from(list(RANGES.values())).map(lambda kind: kind())
)
DMQ = st.none() | st.floats(0.2, 0.8)
ALGORITHM = st.sampled_from(WEIGHT_ALGORITHMS)
LAYER_PLAN = st.builds(
    LayerPlan,
    SETTING,
    st.booleans(),
    st.booleans(),
    st.sampled_from(WEIGHT_BITS),
    DMQ,
    ALGORITHM,
    st.booleans(),
    st.sampled_from([8, 16]),
)
TENSOR_PLAN = st.builds(LayerPlan, SETTING, st.booleans(), st.just(False), power_of_two=st.booleans())
NAME = st.text().filter(lambda name: name not in GLOBAL and ":" not in name)
TENSOR = st.builds("{}:{}".format, NAME, st.integers(0, 3))
PLAN = st.builds(
    lambda layers, tensors, *settings: Plan({**layers, **tensors}, *settings),
    st.dictionaries(NAME, st.none() | LAYER_PLAN, max_size=4),
    st.dictionaries(TENSOR, TENSOR_PLAN, max_size=2),
    st.integers(min_value=1, max_value=10**6),
    st.builds(Fusion, st.booleans(), st.frozensets(NAME, max_size=3)),
    st.booleans(),
    st.none() | st.booleans(),
    st.booleans(),
    st.sampled_from(ROUNDINGS),
    st.sampled_from(CORRECTIONS),
    st.booleans(),
    st.none() | st.frozensets(NAME, max_size=3),
)

AMCT_GLOBAL: dict[str, type] = {
    "version": int,
    "batch_num": int,
    "activation_offset": bool,
    "joint_quant": bool,
    "weight_offset": bool,
    "do_fusion": bool,
    "skip_fusion_layers": list,
    "fakequant_precision_mode": str,
    "tensor_quantize": list,
}
AMCT_ACTIVATION: dict[str, type] = {"num_bits": int, "act_algo": str, "asymmetric": bool}
AMCT_IFMR: dict[str, type] = {
    "max_percentile": float,
    "min_percentile": float,
    "search_range": list,
    "search_step": float,
}
AMCT_HFMG: dict[str, type] = {"num_of_bins": int}
AMCT_WEIGHT: dict[str, type] = {"num_bits": int, "wts_algo": str, "channel_wise": bool}


def repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def kinds(value: dict[str, Any]) -> dict[str, type]:
    return {name: type(found) for name, found in value.items()}


def check_activation(activation: dict[str, Any]) -> None:
    own = {"ifmr": AMCT_IFMR, "hfmg": AMCT_HFMG}[activation["act_algo"]]
    assert kinds(activation) == AMCT_ACTIVATION | own and activation["num_bits"] in (8, 16)
    if own is AMCT_IFMR:
        start, end = activation["search_range"]
        assert 0 < start < end and 0 < activation["search_step"] <= end - start


def able(layer: Layer) -> Layer:
    """The layer where weights have algorithms to choose from."""
    return replace(layer, abilities=Abilities(True, True, weight_algorithms=("minmax", "mse", "octav")))


@given(PLAN)
def test_save_and_load(plan: Plan) -> None:
    assert parse_config(config_text(plan), "config.json") == plan


@given(PLAN)
def test_a_written_config_is_one_of_amct(plan: Plan) -> None:
    config = json.loads(config_text(plan), object_pairs_hook=repeated)
    assert list(config) == sorted(config)
    config.pop("autoquant", None)
    tensors = config.get("tensor_quantize", [])
    for key in set(config) & set(AMCT_GLOBAL):
        assert type(config.pop(key)) is AMCT_GLOBAL[key]
    assert set(config) == {name for name in plan.layers if ":" not in name}
    assert len(tensors) == sum(":" in name for name in plan.layers)
    for entry in tensors:
        assert set(entry) == {"layer_name", "input_index", "activation_quant_params"}
        check_activation(entry["activation_quant_params"])
    for name in config:
        settings, written = plan.layers[name], config[name]
        if settings is None:
            assert written == {"quant_enable": False}
            continue
        needed = {"quant_enable", "activation_quant_params", "weight_quant_params"}
        assert set(written) == needed | (set() if settings.dmq is None else {"dmq_balancer_param"})
        check_activation(written["activation_quant_params"])
        assert kinds(written["weight_quant_params"]) == AMCT_WEIGHT
        if settings.weight_algorithm == "minmax":
            assert written["weight_quant_params"]["wts_algo"] == "arq_quantize"


@given(st.data())
def test_save_and_load_for_a_model(found: Survey, data: st.DataObject) -> None:
    layers = {name: able(layer) if layer.weight else layer for name, layer in found.by_name.items()}
    plans = {}
    for name, layer in layers.items():
        asked = data.draw(LAYER_PLAN)
        settings = {field.name: getattr(asked, field.name) for field in fields(asked) if field.name != "activation"}
        plans[name] = data.draw(st.sampled_from([None, layer_plan(layer, LayerPlan(asked.activation, **settings))]))
    plan = Plan(plans, fusion=Fusion(skip=frozenset({"conv"})))
    text = config_text(plan, layers=layers)
    assert parse_config(text, "config.json", layers=layers) == plan == parse_config(text, "config.json")


def test_a_plan_of_ifmr_needs_no_word_of_ours() -> None:
    plan = Plan({"conv1": LayerPlan(Ifmr(max_percentile=0.999), asymmetric=False), "conv2": None}, 4)
    assert json.loads(config_text(plan)) == {
        "activation_offset": False,
        "batch_num": 4,
        "conv1": {
            "activation_quant_params": {
                "act_algo": "ifmr",
                "asymmetric": False,
                "max_percentile": 0.999,
                "min_percentile": 0.999999,
                "num_bits": 8,
                "search_range": [0.7, 1.3],
                "search_step": 0.01,
            },
            "quant_enable": True,
            "weight_quant_params": {"channel_wise": True, "num_bits": 8, "wts_algo": "arq_quantize"},
        },
        "conv2": {"quant_enable": False},
        "do_fusion": True,
        "skip_fusion_layers": [],
        "version": 1,
    }


def test_all_that_a_plan_can_say(found: Survey) -> None:
    plan = Plan(
        {
            "conv": LayerPlan(RANGES["hfmg"](num_of_bins=2048), weight_bits=7, dmq=0.5),
            "fc": LayerPlan(MinMax(), asymmetric=False, channel_wise=False),
            "pool": LayerPlan(channel_wise=False),
            "max:0": LayerPlan(Percentile(0.99), channel_wise=False),
        },
        2,
        Fusion(enabled=False, skip=frozenset({"b", "a"})),
        fp16_scales=True,
        exact=True,
        equalize=True,
        weight_rounding="gptq",
        bias_correction="analytic",
        training=True,
        float_operators=frozenset({"sum", "mask"}),
    )
    config = json.loads(config_text(plan, layers=found.by_name))
    ifmr = {"act_algo": "ifmr", "max_percentile": 0.999999, "min_percentile": 0.999999}
    ifmr |= {"num_bits": 8, "search_range": [0.7, 1.3], "search_step": 0.01}
    assert config == {
        "activation_offset": True,
        "autoquant": {
            "activation_quant_params": {
                "fc": {"act_algo": "minmax"},
                "max:0": {"act_algo": "percentile", "fraction": 0.99},
            },
            "bias_correction": "analytic",
            "equalize": True,
            "exact": True,
            "float_operators": ["mask", "sum"],
            "training": True,
            "weight_rounding": "gptq",
        },
        "batch_num": 2,
        "conv": {
            "activation_quant_params": {"act_algo": "hfmg", "asymmetric": True, "num_bits": 8, "num_of_bins": 2048},
            "dmq_balancer_param": 0.5,
            "quant_enable": True,
            "weight_quant_params": {"channel_wise": True, "num_bits": 7, "wts_algo": "arq_quantize"},
        },
        "do_fusion": False,
        "fakequant_precision_mode": "FORCE_FP16_QUANT",
        "fc": {
            "activation_quant_params": {"asymmetric": False, **ifmr},
            "quant_enable": True,
            "weight_quant_params": {"channel_wise": False, "num_bits": 8, "wts_algo": "arq_quantize"},
        },
        "pool": {"activation_quant_params": {"asymmetric": True, **ifmr}, "quant_enable": True},
        "skip_fusion_layers": ["a", "b"],
        "tensor_quantize": [
            {"activation_quant_params": {"asymmetric": True, **ifmr}, "input_index": 0, "layer_name": "max"}
        ],
        "version": 1,
    }


def test_a_layer_called_like_a_global_key(found: Survey) -> None:
    for name in ("batch_num", "autoquant", "tensor_quantize"):
        with pytest.raises(PlanError, match=f"{name}: a layer is called like a global key"):
            config_text(Plan({name: None}))
        with pytest.raises(PlanError, match=f"{name}: a layer is called like a global key"):
            parse_config("{}", "config.json", layers={name: found.layers[0]})


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(PlanError, match=r"config.json: cannot be read .*; give the config.json of a run"):
        load_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"config.json: cannot be read"):
        load_config(path)
    path.write_bytes(b'\xef\xbb\xbf{"batch_num": 2,\r\n "conv": {}}\r\n')  # as Windows writes it
    assert load_config(path) == parse_config('{"batch_num": 2, "conv": {}}', "config.json")
    plan = Plan({"größe/Conv2D": LayerPlan(Percentile(0.99))})
    save_config(plan, path)
    assert load_config(path) == plan


@given(PLAN)
def test_keys_are_sorted_and_the_text_is_the_same_when_it_is_written_again(plan: Plan) -> None:
    """Settings remember their part of it; layers with the same object can have a weight, or none."""
    text = config_text(plan)
    assert text == json_text(json.loads(text)) == config_text(replace(plan))


def test_settings_that_layers_share_are_written_as_each_can_have_them() -> None:
    settings = LayerPlan()
    plan = Plan({"conv": settings, "pool": settings})
    conv = Layer("conv", "Conv2D", ("x",), -1, "w", (3, 3, 2, 2), (3,), None, None, 1)
    pool = Layer("pool", "AvgPool", ("y",), -1, None, (), (), None, None, 1)
    for _ in range(2):
        found = json.loads(config_text(plan, layers={"conv": conv, "pool": pool}))
        assert "weight_quant_params" in found["conv"] and "weight_quant_params" not in found["pool"]
        assert "weight_quant_params" in json.loads(config_text(plan))["pool"]
