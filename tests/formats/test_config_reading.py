from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import RANGES, Ifmr, MinMax
from autoquant.errors import PlanError
from autoquant.formats.config_json import parse_config
from autoquant.model.layer import Abilities, Survey
from autoquant.model.model import Fusion


def test_a_config_as_amct_writes_it_with_every_default(found: Survey) -> None:
    text = """{"version": 1, "batch_num": 2, "activation_offset": false, "joint_quant": false, "do_fusion": true,
        "weight_offset": false, "fakequant_precision_mode": "DEFAULT", "skip_fusion_layers": [], "tensor_quantize": [],
        "conv": {}, "fc": {"activation_quant_params": {"asymmetric": true, "max_percentile": 1}},
        "conv2": {"quant_enable": false, "weight_quant_params": {"channel_wise": true}}}"""
    assert parse_config(text, "config.json", layers=found.by_name) == Plan(
        {
            "conv": LayerPlan(Ifmr(), asymmetric=False, channel_wise=True),
            "fc": LayerPlan(Ifmr(max_percentile=1.0), asymmetric=True, channel_wise=False),
            "conv2": None,
        },
        2,
    )
    assert parse_config("{}", "config.json") == Plan({}, 1)


def test_every_setting(found: Survey) -> None:
    text = """{"batch_num": 3, "do_fusion": false, "skip_fusion_layers": ["conv", "bn"],
        "fakequant_precision_mode": "FORCE_FP16_QUANT", "autoquant": {"exact": false,
        "equalize": true, "weight_rounding": "gptq", "bias_correction": "empirical", "training": true,
        "activation_quant_params": {"fc": {"act_algo": "minmax"}}}, "fc": {},
        "tensor_quantize": [{"layer_name": "add", "input_index": 1, "activation_quant_params": {"asymmetric": false,
            "act_algo": "hfmg", "num_of_bins": 1024}}],
        "conv": {"dmq_balancer_param": 0.2, "activation_quant_params": {"act_algo": "hfmg", "num_of_bins": 8192},
            "weight_quant_params": {"num_bits": 6, "channel_wise": false, "wts_algo": "arq_quantize"}},
        "conv2": {"activation_quant_params": {"num_bits": 8, "act_algo": "ifmr", "max_percentile": 0.9,
            "min_percentile": 0.8, "search_range": [0.5, 2], "search_step": 0.25}, "weight_quant_params": {}}}"""
    assert parse_config(text, "config.json", layers=found.by_name) == Plan(
        {
            "conv": LayerPlan(RANGES["hfmg"](num_of_bins=8192), channel_wise=False, weight_bits=6, dmq=0.2),
            "conv2": LayerPlan(Ifmr(0.9, 0.8, 0.5, 2.0, 0.25)),
            "fc": LayerPlan(MinMax(), channel_wise=False),
            "add:1": LayerPlan(RANGES["hfmg"](num_of_bins=1024), asymmetric=False, channel_wise=False),
        },
        3,
        Fusion(enabled=False, skip=frozenset({"conv", "bn"})),
        fp16_scales=True,
        exact=False,
        equalize=True,
        weight_rounding="gptq",
        bias_correction="empirical",
        training=True,
    )


@pytest.mark.parametrize(
    ("said", "activation"),
    [
        ('"max_percentile": 1.0, "min_percentile": 0.5000001', Ifmr(1.0, 0.5000001)),
        ('"search_range": [0.9, 1.0], "search_step": 0.1', Ifmr(search_start=0.9, search_end=1.0, search_step=0.1)),
        ('"search_range": [1e-9, 1]', Ifmr(search_start=1e-9, search_end=1.0)),
        ('"act_algo": "hfmg"', RANGES["hfmg"](num_of_bins=4096)),
    ],
)
def test_the_last_values_that_are_legal(found: Survey, said: str, activation: object) -> None:
    plan = parse_config(ACTIVATION % said, "config.json", layers=found.by_name)
    assert plan.layers["conv"] == LayerPlan(activation)  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", [0.2, 0.8])
def test_the_last_strengths_that_are_legal(found: Survey, strength: float) -> None:
    text = json.dumps({"conv": {"dmq_balancer_param": strength}})
    assert parse_config(text, "config.json", layers=found.by_name).layers["conv"] == LayerPlan(dmq=strength)


def test_defaults_are_what_a_layer_can_have(found: Survey) -> None:
    text = json.dumps({layer.name: {} for layer in found.layers})
    plan = parse_config(text, "config.json", layers=found.by_name)
    able = {name: (settings.channel_wise, settings.asymmetric) for name, settings in plan.int8.items()}
    assert able == {
        "conv": (True, True),
        "conv2": (True, True),
        "depthwise": (True, True),
        "fc": (False, True),
        "pool": (False, True),
        "scores": (False, False),
    }


ACTIVATION = '{"conv": {"activation_quant_params": {%s}}}'
WEIGHT = '{"conv": {"weight_quant_params": {%s}}}'
OURS = '{"conv": {}, "autoquant": {"activation_quant_params": %s}}'
TENSOR = '{"tensor_quantize": [{%s}]}'
IN_ACTIVATION = "$.conv.activation_quant_params"
IN_WEIGHT = "$.conv.weight_quant_params"
IN_OURS = "$.autoquant.activation_quant_params"
BAD = [
    ('{"conv": 5}', "$.conv: expected an object, got 5"),
    ("[]", "$: expected an object, got []"),
    ('{"version": 2}', "$.version: version must be 1, got 2; set it to 1"),
    ('{"batch_num": "1"}', "$.batch_num: expected int, got '1'"),
    ('{"batch_num": true}', "$.batch_num: expected int, got True"),
    ('{"batch_num": 0}', "$.batch_num: batch_num must be greater than zero, got 0"),
    ('{"batch_num": NaN}', " is not valid JSON: NaN is not a number; correct the JSON"),
    (
        '{"joint_quant": true}',
        "$.joint_quant: joint_quant true: joint quantization of Eltwise operators is not supported",
    ),
    ('{"weight_offset": true}', "$.weight_offset: weight_offset true: weights are symmetric"),
    ('{"do_fusion": 1}', "$.do_fusion: expected bool, got 1"),
    ('{"skip_fusion_layers": ["a", "a"]}', "$.skip_fusion_layers: 'a' is there 2 times; name it once"),
    ('{"skip_fusion_layers": [1]}', "$.skip_fusion_layers: expected a list of str, got [1]"),
    ('{"skip_fusion_layers": "a"}', "$.skip_fusion_layers: expected list, got 'a'"),
    ('{"fakequant_precision_mode": "FP16"}', "$.fakequant_precision_mode: unknown 'FP16'; it can be DEFAULT"),
    ('{"autoquant": {"exact": 1}}', "$.autoquant.exact: expected bool, got 1; true to calibrate on all values"),
    ('{"autoquant": {"equalize": 1}}', "$.autoquant.equalize: expected bool, got 1"),
    ('{"autoquant": {"equalize": null}}', "$.autoquant.equalize: expected bool, got None"),
    ('{"autoquant": {"float_operators": "sum"}}', "$.autoquant.float_operators: expected list, got 'sum'"),
    ('{"autoquant": {"float_operators": [1]}}', "$.autoquant.float_operators: expected a list of str, got [1]"),
    ('{"autoquant": {"float_operators": ["a", "a"]}}', "$.autoquant.float_operators: 'a' is there 2 times"),
    ('{"autoquant": {"bias_correction": true}}', "$.autoquant.bias_correction: "),
    ('{"autoquant": {"training": 1}}', "$.autoquant.training: "),
    ('{"autoquant": {"weight_rounding": "gpt"}}', "$.autoquant.weight_rounding: unknown 'gpt'; try 'gptq'"),
    (
        '{"autoquant": {"bias_correction": "empiric"}}',
        "$.autoquant.bias_correction: unknown 'empiric'; try 'empirical'",
    ),
    ('{"autoquant": {"extra": 1}}', "$.autoquant.extra: unknown key"),
    ('{"conv": {"quant_enabled": true}}', "$.conv.quant_enabled: unknown key; did you mean 'quant_enable'?"),
    ('{"conv": {"quant_enable": 1}}', "$.conv.quant_enable: expected bool, got 1"),
    ('{"conv": {"quant_enable": null}}', "$.conv.quant_enable: expected bool, got None"),
    ('{"conv": {"dmq_balancer_param": 0.9}}', "$.conv: dmq_balancer_param must be in [0.2, 0.8], got 0.9"),
    (WEIGHT % '"wts_algo": "nuq_quantize"', f"{IN_WEIGHT}.wts_algo: non-uniform quantization (nuq_quantize) is not"),
    (WEIGHT % '"wts_algo": "ada_quantize"', f"{IN_WEIGHT}.wts_algo: ada_quantize is for PyTorch only; use arq_quant"),
    (WEIGHT % '"wts_algo": "arq"', f"{IN_WEIGHT}.wts_algo: wts_algo must be one of arq_quantize, mse, octav, got 'ar"),
    (WEIGHT % '"wts_algo": "octave"', f"{IN_WEIGHT}.wts_algo: wts_algo must be one of arq_quantize, mse, octav, got"),
    (WEIGHT % '"wts_algo": "minmax"', f"{IN_WEIGHT}.wts_algo: wts_algo must be one of arq_quantize, mse, octav, got"),
    (WEIGHT % '"wts_algo": null', f"{IN_WEIGHT}.wts_algo: expected str, got None; for example 'arq_quantize'"),
    (WEIGHT % '"num_bits": 4', "$.conv: num_bits of a weight must be 8, 7 or 6, got 4"),
    (WEIGHT % '"num_bits": 7.5', f"{IN_WEIGHT}.num_bits: expected int, got 7.5"),
    (WEIGHT % '"num_steps": 16', f"{IN_WEIGHT}.num_steps: unknown key"),
    (
        ACTIVATION % '"num_bits": 4',
        f"{IN_ACTIVATION}.num_bits: num_bits of an activation must be 8, or 16 for --target",
    ),
    (ACTIVATION % '"act_algo": "ifrm"', f"{IN_ACTIVATION}.act_algo: act_algo must be ifmr or hfmg, got 'ifrm'; try if"),
    (
        ACTIVATION % '"act_algo": "minmax"',
        f"{IN_ACTIVATION}.act_algo: act_algo must be ifmr or hfmg, got 'minmax'; put it under \"autoquant\"",
    ),
    (
        ACTIVATION % '"max_percentile": 0.5',
        f"{IN_ACTIVATION}: max_percentile must be greater than 0.5 and less than or equal to 1.0, got 0.5",
    ),
    (
        ACTIVATION % '"min_percentile": 1.5',
        f"{IN_ACTIVATION}: min_percentile must be greater than 0.5 and less than or",
    ),
    (
        ACTIVATION % '"search_step": 0.7',
        f"{IN_ACTIVATION}: search_step must be less than or equal to (search_range[1] - search_range[0]), got 0.7",
    ),
    (ACTIVATION % '"search_step": 1e999', f"{IN_ACTIVATION}: search_step must be less than or equal to (search_range"),
    (
        ACTIVATION % '"search_step": 9, "search_range": [1, 2]',
        f"{IN_ACTIVATION}: search_step must be less than or equal to (search_range[1] - search_range[0]), got 9.0 of "
        "[1.0, 2.0]; correct the value",
    ),
    (
        ACTIVATION % '"search_step": 1e-12',
        f"{IN_ACTIVATION}: search_step 1e-12 divides [0.7, 1.3] into more than 100,000 steps: to try them all takes",
    ),
    (ACTIVATION % '"search_range": [0, 1]', f"{IN_ACTIVATION}: search_range[0] must be greater than zero"),
    (ACTIVATION % '"search_range": [1.3, 0.7]', f"{IN_ACTIVATION}: search_range[0] must be less than search_range[1]"),
    (ACTIVATION % '"search_range": [1, Infinity]', " is not valid JSON: Infinity is not a number"),
    (ACTIVATION % '"search_range": [NaN, 1.3]', " is not valid JSON: NaN is not a number"),
    (ACTIVATION % '"search_range": [1]', f"{IN_ACTIVATION}.search_range: expected two numbers, got [1]"),
    (ACTIVATION % '"search_range": [true, 2]', f"{IN_ACTIVATION}.search_range: expected two numbers"),
    (ACTIVATION % f'"search_range": [1, {10**400}]', f"{IN_ACTIVATION}: int too large"),
    (
        ACTIVATION % '"act_algo": "hfmg", "num_of_bins": 1000',
        f"{IN_ACTIVATION}: num_of_bins 1000 must be in [1024, 2048, 4096, 8192]",
    ),
    (
        ACTIVATION % '"max_percentile": 0.9, "num_of_bins": 4096',
        f"{IN_ACTIVATION}.num_of_bins: ['max_percentile'] and ['num_of_bins'] can not appear at same time; keep the",
    ),
    (
        ACTIVATION % '"act_algo": "hfmg", "num_of_bins": 4096, "search_step": 0.1',
        f"{IN_ACTIVATION}.search_step: ['num_of_bins'] and ['search_step'] can not appear at same time",
    ),
    (
        ACTIVATION % '"num_of_bins": 4096',
        f"{IN_ACTIVATION}.num_of_bins: ['act_algo ifmr'] and ['num_of_bins'] can not appear at same time",
    ),
    (OURS % '{"conv2": {}}', f"{IN_OURS}.conv2: no such layer in this file"),
    ('{"conv": {}, "autoquant": {"power_of_two": ["conv2"]}}', "$.autoquant.power_of_two: no layer 'conv2' in this"),
    ('{"conv": {}, "autoquant": {"power_of_two": true}}', "$.autoquant.power_of_two: expected list, got True"),
    (OURS % "[1]", f"{IN_OURS}: expected an object, got [1]"),
    (OURS % '{"conv": {"act_algo": "minmx"}}', f"{IN_OURS}.conv.act_algo: unknown 'minmx'; try 'minmax'"),
    (OURS % '{"conv": {"act_algo": "ifmr"}}', f"{IN_OURS}.conv.act_algo: unknown 'ifmr'; it can be"),
    (
        OURS % '{"conv": {"act_algo": "percentile", "fraction": 2}}',
        f"{IN_OURS}.conv: fraction must be greater than 0.5",
    ),
    (TENSOR % "", "$.tensor_quantize[0].layer_name: is missing, expected str"),
    (TENSOR % '"layer_name": "max"', "$.tensor_quantize[0].input_index: is missing, expected int"),
    (TENSOR % '"layer_name": 3, "input_index": 0', "$.tensor_quantize[0].layer_name: expected str, got 3"),
    (TENSOR % '"layer_name": "max", "input_index": -1', "$.tensor_quantize[0].input_index: must be 0 or more, got -1"),
    (TENSOR % '"layer_name": "max", "input_index": 0, "quant_enable": true', "$.tensor_quantize[0].quant_enable: unkn"),
    (
        '{"tensor_quantize": [%s, %s]}' % (('{"layer_name": "max", "input_index": 0}',) * 2),
        "$.tensor_quantize[1]: tensor_quantize has 'max:0' twice",
    ),
    ('{"tensor_quantize": {}}', "$.tensor_quantize: expected list, got {}"),
    ('{"max:0": {}}', "$.max:0: 'max:0' is an invalid layer name or parameter; inputs of operators stand in tensor_q"),
    (
        '{"conv": {"quant_enable": true, "quant_enable": false}}',
        " is not valid JSON: the key 'quant_enable' appears twice",
    ),
    ('{"conv": {}, "conv": {}}', " is not valid JSON: the key 'conv' appears twice"),
    (TENSOR % '"input_index": 0, "input_index": 0', " is not valid JSON: the key 'input_index' appears twice"),
    ('{"conv": {},\n  }', " is not valid JSON: Expecting property name enclosed in double quotes: line 2 column 3"),
    ("", " is not valid JSON: Expecting value: line 1 column 1"),
    ("[" * 10**6, " is not valid JSON: "),
    ('{"batch_num": ' + "1" * 5000 + "}", " is not valid JSON: "),
]
UNFIT = [
    ('{"batchnum": 2}', "$.batchnum: 'batchnum' is an invalid layer name or parameter; did you mean 'batch_num'?"),
    ('{"conv9": {}}', "$.conv9: 'conv9' is an invalid layer name or parameter; did you mean 'conv'?"),
    ('{"Z": {}}', "$.Z: 'Z' is an invalid layer name or parameter; `autoquant inspect` lists the layers"),
    ('{"max": {}}', "$.max: layer max does not support quant.; only its inputs can be quantized: name it in tensor_q"),
    ('{"fc": {"weight_quant_params": {"channel_wise": true}}}', "$.fc: channel_wise must be false for layer type MatM"),
    (
        '{"pool": {"weight_quant_params": {"channel_wise": true}}}',
        "$.pool: channel_wise must be false for layer type",
    ),
    ('{"depthwise": {"weight_quant_params": {"num_bits": 7}}}', "$.depthwise: weights of 7 bits are for Conv2D only"),
    (
        WEIGHT % '"wts_algo": "octav"',
        "$.conv: weights by octav are not possible for layer type Conv2D on this target; s",
    ),
    ('{"pool": {"dmq_balancer_param": 0.5}}', "$.pool: layer type AvgPool has no weight to balance; remove dmq_bal"),
    ('{"scores": {"activation_quant_params": {"asymmetric": true}}}', "$.scores: asymmetric must be false: both of"),
    (
        '{"fc": {"quant_enable": false, "weight_quant_params": {"channel_wise": true}}}',
        "$.fc: channel_wise must be false for layer type MatMul; set it to false",
    ),
    (TENSOR % '"layer_name": "conv", "input_index": 0', "$.tensor_quantize[0]: layer conv is a Conv2D: tensor_quanti"),
    (TENSOR % '"layer_name": "max", "input_index": 1', "$.tensor_quantize[0]: input 1 of layer max cannot be quantiz"),
    (
        TENSOR % '"layer_name": "max:0", "input_index": 0',
        "$.tensor_quantize[0]: Layer max:0 does not exist in the graph, as a MaxPool, Add or AddV2; did you mean 'max'",
    ),
    (
        TENSOR % '"layer_name": "maxx", "input_index": 0',
        "$.tensor_quantize[0]: Layer maxx does not exist in the graph, as a MaxPool, Add or AddV2; did you mean 'max'?",
    ),
]


@pytest.mark.parametrize(("written", "algorithm"), [("arq_quantize", "minmax"), ("mse", "mse"), ("octav", "octav")])
def test_weight_algorithms(found: Survey, written: str, algorithm: str) -> None:
    able = replace(found.by_name["conv"], abilities=Abilities(True, True, (8,), ("minmax", "mse", "octav")))
    text = WEIGHT % f'"wts_algo": "{written}"'
    for layers in ({"conv": able}, {}):
        plan = parse_config(text, "config.json", layers=layers)
        assert plan.int8["conv"].weight_algorithm == algorithm


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:60] for _, message in BAD])
@pytest.mark.parametrize("known", [False, True])
def test_refused_input_is_named(found: Survey, text: str, message: str, known: bool) -> None:
    with pytest.raises(PlanError) as caught:
        parse_config(text, "config.json", layers=found.by_name if known else {})
    assert str(caught.value).startswith(f"config.json:{message}")
    assert caught.value.hint


@pytest.mark.parametrize(("text", "message"), UNFIT, ids=[message[:60] for _, message in UNFIT])
def test_settings_that_the_model_cannot_have(found: Survey, text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_config(text, "config.json", layers=found.by_name)
    assert str(caught.value).startswith(f"config.json:{message}")
    assert caught.value.hint


def test_operators_that_cannot_be_quantized(found: Survey) -> None:
    with pytest.raises(PlanError) as caught:
        parse_config('{"conv": {}, "shared": {}}', "config.json", layers=found.by_name, rejected=found.rejected)
    what = "layer shared does not support quant.: its weight 'w' is shared with 'conv9'"
    assert str(caught.value) == f"config.json:$.shared: {what}; remove it, which leaves it in float"


WORDS = """conv fc max:0 pool quant_enable dmq_balancer_param activation_quant_params weight_quant_params num_bits
act_algo asymmetric max_percentile search_range search_step num_of_bins wts_algo channel_wise autoquant exact version
equalize bias_correction tensor_quantize layer_name input_index batch_num skip_fusion_layers do_fusion
fakequant_precision_mode"""
KEY = st.sampled_from(WORDS.split())
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.sampled_from(["", "conv", "ifmr", "hfmg"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEY, VALUE, max_size=4), st.booleans())
def test_anything_is_a_plan_or_a_plan_error(found: Survey, config: dict[str, Any], known: bool) -> None:
    try:
        assert isinstance(parse_config(json.dumps(config), "c.json", layers=found.by_name if known else {}), Plan)
    except PlanError as error:
        assert error.where.startswith("c.json") and error.hint


def test_16_bits_are_refused_where_the_target_has_none(found: Survey) -> None:
    text = ACTIVATION % '"num_bits": 16'
    assert parse_config(text, "a").int8["conv"].activation_bits == 16
    with pytest.raises(
        PlanError, match=r"activations of 16 bits are not possible for layer type Conv2D on this target"
    ):
        parse_config(text, "a", layers=found.by_name)
    able = {"conv": replace(found.by_name["conv"], abilities=Abilities(True, True, activation_bits=(8, 16)))}
    assert parse_config(text, "a", layers=able).int8["conv"].activation_bits == 16
