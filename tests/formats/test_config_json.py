import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile
from autoquant.errors import PlanError
from autoquant.formats.config_json import GLOBAL, config_text, load_config, parse_config, save_config

FRACTION = st.floats(0.5, 1.0, exclude_min=True)
IFMR = st.builds(
    lambda most, least, start, width, part: Ifmr(most, least, start, start + width, max(width * part, 1e-9)),
    FRACTION,
    FRACTION,
    st.floats(0.1, 1.0),
    st.floats(0.1, 2.0),
    st.floats(0.01, 0.5),
)
SETTING = st.one_of(IFMR, st.just(MinMax()), st.builds(Percentile, FRACTION))
LAYER_PLAN = st.builds(LayerPlan, SETTING, st.booleans(), st.booleans())
NAME = st.text().filter(lambda name: name not in GLOBAL)
PLAN = st.builds(
    Plan, st.dictionaries(NAME, st.none() | LAYER_PLAN, max_size=4), st.integers(min_value=1, max_value=10**6)
)

AMCT_GLOBAL = {
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
AMCT_ACTIVATION = {
    "num_bits": int,
    "act_algo": str,
    "asymmetric": bool,
    "max_percentile": float,
    "min_percentile": float,
    "search_range": list,
    "search_step": float,
}
AMCT_WEIGHT = {"num_bits": int, "wts_algo": str, "channel_wise": bool}


def repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def kinds(value: dict[str, Any]) -> dict[str, type]:
    return {name: type(found) for name, found in value.items()}


@given(PLAN)
def test_save_and_load(plan: Plan):
    assert parse_config(config_text(plan), "config.json") == plan


@given(PLAN)
def test_what_is_written_is_a_config_of_amct(plan: Plan):
    config = json.loads(config_text(plan), object_pairs_hook=repeated)
    assert list(config) == sorted(config)
    config.pop("autoquant", None)
    for key in set(config) & set(AMCT_GLOBAL):
        assert type(config.pop(key)) is AMCT_GLOBAL[key]
    assert set(config) == set(plan.layers)
    for name, settings in plan.layers.items():
        if settings is None:
            assert config[name] == {"quant_enable": False}
            continue
        assert set(config[name]) == {"quant_enable", "activation_quant_params", "weight_quant_params"}
        activation, weight = config[name]["activation_quant_params"], config[name]["weight_quant_params"]
        assert kinds(activation) == AMCT_ACTIVATION and kinds(weight) == AMCT_WEIGHT
        assert (activation["num_bits"], activation["act_algo"], weight["num_bits"]) == (8, "ifmr", 8)
        start, end = activation["search_range"]
        assert 0 < start < end and 0 < activation["search_step"] <= end - start


def test_a_plan_of_ifmr_needs_no_word_of_ours():
    plan = Plan({"conv1": LayerPlan(Ifmr(max_percentile=0.999), asymmetric=False), "conv2": None}, 4)
    assert json.loads(config_text(plan)) == {
        "activation_offset": True,
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


def test_a_config_as_amct_writes_it_with_every_default():
    text = """{"version": 1, "batch_num": 2, "activation_offset": false, "joint_quant": false, "do_fusion": true,
        "weight_offset": false, "fakequant_precision_mode": "DEFAULT", "skip_fusion_layers": [], "tensor_quantize": [],
        "conv1": {}, "fc": {"activation_quant_params": {"asymmetric": true, "max_percentile": 1}},
        "conv2": {"quant_enable": false, "weight_quant_params": {"channel_wise": true}}}"""
    assert parse_config(text, "config.json", ops={"conv1": "Conv2D", "fc": "MatMul"}) == Plan(
        {
            "conv1": LayerPlan(Ifmr(), asymmetric=False, channel_wise=True),
            "fc": LayerPlan(Ifmr(max_percentile=1.0), asymmetric=True, channel_wise=False),
            "conv2": None,
        },
        2,
    )
    assert parse_config("{}", "config.json") == Plan({}, 1)


ACTIVATION = '{"conv1": {"activation_quant_params": {%s}}}'
OURS = '{"conv1": {}, "autoquant": {"activation_quant_params": %s}}'
BAD = [
    ('{"conv1": 5}', "$.conv1: expected an object, got 5"),
    ("[]", "$: expected an object, got []"),
    ('{"version": 2}', "$.version: unknown 2; it can be 1"),
    ('{"batch_num": "1"}', "$.batch_num: expected int, got '1'"),
    ('{"batch_num": true}', "$.batch_num: expected int, got True"),
    ('{"batch_num": 0}', "$: batch_num must be greater than zero, got 0"),
    ('{"batch_num": NaN}', "$.batch_num: expected int, got nan"),
    ('{"do_fusion": false}', "$.do_fusion: unknown False; it can be True"),
    ('{"joint_quant": true}', "$.joint_quant: unknown True; it can be False"),
    ('{"tensor_quantize": [{}]}', "$.tensor_quantize: unknown [{}]"),
    ('{"conv1": {"quant_enabled": true}}', "$.conv1.quant_enabled: unknown key; did you mean 'quant_enable'?"),
    ('{"conv1": {"quant_enable": 1}}', "$.conv1.quant_enable: expected bool, got 1"),
    ('{"conv1": {"dmq_balancer_param": 0.5}}', "$.conv1.dmq_balancer_param: unknown key"),
    (
        '{"conv1": {"weight_quant_params": {"wts_algo": "nuq_quantize"}}}',
        "$.conv1.weight_quant_params.wts_algo: unknown",
    ),
    ('{"conv1": {"weight_quant_params": {"num_bits": 6}}}', "$.conv1.weight_quant_params.num_bits: unknown 6"),
    (ACTIVATION % '"act_algo": "ifrm"', "$.conv1.activation_quant_params.act_algo: unknown 'ifrm'; try 'ifmr'"),
    (ACTIVATION % '"max_percentile": 0.5', "$.conv1.activation_quant_params: max_percentile must be greater than 0.5"),
    (ACTIVATION % '"max_percentile": NaN', "$.conv1.activation_quant_params: max_percentile must be greater than 0.5"),
    (
        ACTIVATION % '"search_step": Infinity',
        "$.conv1.activation_quant_params: search_step must be in (0, end - start]",
    ),
    (ACTIVATION % '"search_step": 1e999', "$.conv1.activation_quant_params: search_step must be in (0, end - start]"),
    (
        ACTIVATION % '"search_range": [1.3, 0.7]',
        "$.conv1.activation_quant_params: search_range must be 0 < start < end",
    ),
    (
        ACTIVATION % '"search_range": [NaN, 1.3]',
        "$.conv1.activation_quant_params: search_range must be 0 < start < end",
    ),
    (ACTIVATION % '"search_range": [1]', "$.conv1.activation_quant_params.search_range: expected two numbers, got [1]"),
    (ACTIVATION % '"search_range": [true, 2]', "$.conv1.activation_quant_params.search_range: expected two numbers"),
    (ACTIVATION % f'"search_range": [1, {10**400}]', "$.conv1.activation_quant_params: int too large"),
    (OURS % '{"conv2": {}}', "$.autoquant.activation_quant_params.conv2: no such layer in this file"),
    (OURS % "[1]", "$.autoquant.activation_quant_params: expected an object, got [1]"),
    (
        OURS % '{"conv1": {"act_algo": "minmx"}}',
        "$.autoquant.activation_quant_params.conv1.act_algo: unknown 'minmx'; try",
    ),
    (
        OURS % '{"conv1": {"act_algo": "percentile", "fraction": 2}}',
        "$.autoquant.activation_quant_params.conv1: fraction must be greater than 0.5",
    ),
    ('{"autoquant": {"extra": 1}}', "$.autoquant.extra: unknown key"),
    ('{"conv1": {"quant_enable": true, "quant_enable": false}}', "quant_enable: the key is there twice; remove one"),
    ('{"conv1": {}, "conv1": {}}', "conv1: the key is there twice"),
    ('{"conv1": {},\n  }', "2:3: "),
    ("", "1:1: Expecting value; correct the JSON"),
    ("[" * 10**6, " is no config.json: "),
    ('{"batch_num": ' + "1" * 5000 + "}", " is no config.json: "),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_what_is_refused(text: str, message: str):
    with pytest.raises(PlanError) as caught:
        parse_config(text, "config.json")
    assert str(caught.value).startswith(f"config.json:{message}")
    assert caught.value.hint


def test_a_layer_called_like_a_global_key():
    for name in ("batch_num", "autoquant", "tensor_quantize"):
        with pytest.raises(PlanError, match=f"{name}: a layer is called like a global key"):
            config_text(Plan({name: None}))


def test_files(tmp_path: Path):
    path = tmp_path / "config.json"
    with pytest.raises(PlanError, match=r"config.json: cannot be read .*; give the config.json of a run"):
        load_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"config.json: cannot be read"):
        load_config(path)
    plan = Plan({"größe/Conv2D": LayerPlan(Percentile(0.99))})
    save_config(plan, path)
    assert load_config(path) == plan
