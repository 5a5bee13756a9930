from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, Plan, check_plan
from autoquant.calibration.ranges import RANGES, Ifmr
from autoquant.errors import PlanError
from autoquant.formats.calibration_cfg import CalibrationCfg, load_cfg, parse_cfg, plan_of
from autoquant.model.layer import Survey
from autoquant.model.model import Fusion

YOLO = """
# One setting for everything, with the colons that many write before a brace.
batch_num : 2
activation_offset : true
common_config : {
    arq_quantize : { channel_wise : true }
    ifmr_quantize : {
        search_range_start : 0.8
        search_range_end : 1.2
        search_step : 0.02
        max_percentile : 0.9999
        min_percentile : 0.999
    }
}
"""
MIXED = """
batch_num: 4
activation_offset: false
joint_quant: false
enable_auto_nuq: false
fakequant_precision_mode: FORCE_FP16_QUANT
skip_layers: "conv2"
skip_layer_types: ["AvgPool"]
skip_approximation_layers: "fc"
do_fusion: true
skip_fusion_layers: "conv" skip_fusion_layers: "conv2"
common_config {
  arq_quantize { channel_wise: true quant_bits: 6 asymmetric: false }
  dmq_balancer {}
  weight_compress_only: false
}
override_layer_types {
  layer_type: "MatMul"
  calibration_config { hfmg_quantize { num_of_bins: 1024 asymmetric: true dst_type: INT8 } }
}
override_layer_configs {
  layer_name: "depthwise"
  calibration_config {
    arq_quantize { channel_wise: false quant_bits: 8 }
    dmq_balancer { migration_strength: 0.3 }
  }
}
tensor_quantize { layer_name: "max" input_index: 0 ifmr_quantize { search_step: 0.1 asymmetric: true } }
tensor_quantize { layer_name: "add" input_index: 1 hfmg_quantize { num_of_bins: 8192 } }
"""


def test_one_setting_for_all_layers(found: Survey) -> None:
    ifmr = Ifmr(0.9999, 0.999, 0.8, 1.2, 0.02)
    assert plan_of(parse_cfg(YOLO, "yolo.cfg"), found) == Plan(
        {
            "conv": LayerPlan(ifmr),
            "conv2": LayerPlan(ifmr),
            "depthwise": LayerPlan(ifmr),
            "fc": LayerPlan(ifmr, channel_wise=False),
            "pool": LayerPlan(ifmr, channel_wise=False),
            "scores": LayerPlan(ifmr, asymmetric=False, channel_wise=False),
        },
        2,
    )


def test_every_field(found: Survey) -> None:
    cfg = parse_cfg(MIXED, "mixed.cfg")
    assert cfg.fusion == Fusion(skip=frozenset({"conv", "conv2"}))
    plan = plan_of(cfg, found)
    assert plan == Plan(
        {
            "conv": LayerPlan(asymmetric=False, weight_bits=6, dmq=0.5),
            "conv2": None,
            "depthwise": LayerPlan(asymmetric=False, channel_wise=False, dmq=0.3),
            "fc": LayerPlan(RANGES["hfmg"](num_of_bins=1024), channel_wise=False, dmq=0.5),
            "pool": None,
            "scores": LayerPlan(asymmetric=False, channel_wise=False),
            "max:0": LayerPlan(Ifmr(search_step=0.1), asymmetric=True, channel_wise=False),
            "add:1": LayerPlan(RANGES["hfmg"](num_of_bins=8192), asymmetric=False, channel_wise=False),
        },
        4,
        cfg.fusion,
        fp16_scales=True,
    )
    check_plan(plan, found.by_name)


def test_settings_of_all_layers_do_not_apply_to_inputs(found: Survey) -> None:
    plan = plan_of(parse_cfg(YOLO + 'tensor_quantize { layer_name: "max" input_index: 0 }', "yolo.cfg"), found)
    assert plan.layers["max:0"] == LayerPlan(channel_wise=False)
    text = 'common_config { ifmr_quantize { asymmetric: false } } tensor_quantize { layer_name: "max" input_index: 0 }'
    for offset in (True, False):
        plan = plan_of(parse_cfg(f"activation_offset: {str(offset).lower()} {text}", "c.cfg"), found)
        assert plan.layers["max:0"] == LayerPlan(asymmetric=offset, channel_wise=False)
        assert plan.layers["conv"] == LayerPlan(asymmetric=False)


def test_nothing_said(found: Survey) -> None:
    assert parse_cfg("", "empty.cfg") == CalibrationCfg("empty.cfg")
    assert plan_of(parse_cfg("", "empty.cfg"), found) == plan_of(CalibrationCfg("c.cfg"), found)


def test_without_fusion(found: Survey) -> None:
    cfg = parse_cfg('do_fusion: false skip_fusion_layers: "conv"', "c.cfg")
    assert cfg.fusion == plan_of(cfg, found).fusion == Fusion(enabled=False, skip=frozenset({"conv"}))


def test_the_last_algorithm_counts(found: Survey) -> None:
    text = """common_config { hfmg_quantize { num_of_bins: 1024 } nuq_quantize { num_steps: 16 }
        ifmr_quantize { search_step: 0.5 } arq_quantize { channel_wise: false } }
    override_layer_configs { layer_name: "fc" calibration_config {
        ifmr_quantize { asymmetric: false } hfmg_quantize { num_of_bins: 2048 } } }"""
    plan = plan_of(parse_cfg(text, "c.cfg"), found).int8
    assert plan["conv"] == LayerPlan(Ifmr(search_step=0.5), channel_wise=False)
    assert plan["fc"] == LayerPlan(RANGES["hfmg"](num_of_bins=2048), channel_wise=False)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "channel_wise": st.booleans(),
        "quant_bits": st.sampled_from([6, 7, 8]),
        "dmq": st.floats(0.2, 0.8),
        "asymmetric": st.booleans(),
        "search_step": st.floats(0.01, 0.6, exclude_max=True),
    },
)


def calibration_config(said: Mapping[str, Any]) -> str:
    def fields(*names: str) -> str:
        return " ".join(f"{name}: {str(said[name]).lower()}" for name in names if name in said)

    dmq = f"dmq_balancer {{ migration_strength: {said['dmq']} }}" if "dmq" in said else ""
    ifmr = fields("asymmetric", "search_step")
    arq = fields("channel_wise", "quant_bits")
    return f"{{ {f'arq_quantize {{ {arq} }}' if arq else ''} {f'ifmr_quantize {{ {ifmr} }}' if ifmr else ''} {dmq} }}"


@given(SETTINGS, SETTINGS, SETTINGS, st.none() | st.booleans())
def test_the_order_of_precedence(
    found: Survey, common: dict[str, Any], kind: dict[str, Any], own: dict[str, Any], offset: bool | None
) -> None:
    """Layer before type before all before activation_offset, setting by setting; IFMR's parameters are one setting."""
    text = "" if offset is None else f"activation_offset: {str(offset).lower()}\n"
    text += f"""common_config {calibration_config(common)}
    override_layer_types {{ layer_type: "Conv2D" calibration_config {calibration_config(kind)} }}
    override_layer_configs {{ layer_name: "conv" calibration_config {calibration_config(own)} }}"""
    plan = plan_of(parse_cfg(text, "c.cfg"), found).int8

    def expected(*levels: dict[str, Any]) -> LayerPlan:
        def first(name: str, default: Any) -> Any:
            return next((level[name] for level in levels if name in level), default)

        asked = [level for level in levels if "asymmetric" in level or "search_step" in level]
        step = asked[0].get("search_step", 0.01) if asked else 0.01
        offset_wanted = first("asymmetric", True if offset is None else offset)
        return LayerPlan(
            Ifmr(search_step=step),
            offset_wanted,
            first("channel_wise", True),
            first("quant_bits", 8),
            first("dmq", None),
        )

    assert plan["conv"] == expected(own, kind, common)
    assert plan["conv2"] == expected(kind, common)
    of_others = expected(common)
    assert plan["depthwise"] == LayerPlan(
        of_others.activation, of_others.asymmetric, of_others.channel_wise, 8, of_others.dmq
    )
    assert plan["fc"] == LayerPlan(of_others.activation, of_others.asymmetric, False, 8, of_others.dmq)
    assert plan["pool"] == LayerPlan(of_others.activation, of_others.asymmetric, False)
    assert plan["scores"] == LayerPlan(of_others.activation, False, False)


def layer(name: str, said: str) -> str:
    return f'override_layer_configs {{ layer_name: "{name}" calibration_config {{ {said} }} }}'


def kind(name: str, said: str) -> str:
    return f'override_layer_types {{ layer_type: "{name}" calibration_config {{ {said} }} }}'


def common(said: str) -> str:
    return f"common_config {{ {said} }}"


TENSOR = "tensor_quantize { %s }"
IN_COMMON = "c.cfg: common_config: "
BAD = [
    ("batch_num: 0", "c.cfg: batch_num must be greater than zero, got 0"),
    ("batch_num: -1", "c.cfg:1:12: is not a calibration config (message AMCTConfig): "),
    (
        "batch_num: 1\n batch: 2",
        'c.cfg:2:2: is not a calibration config (message AMCTConfig): Message type "AMCTConfig" has',
    ),
    ("batch_num: 1 batch_num: 2", "c.cfg:1:25: is not a calibration config"),
    ("common_config {} common_config {}", "c.cfg:1:32: is not a calibration config"),
    ("common_config {", "c.cfg:1:15: is not a calibration config"),
    ('{"batch_num": 1}', "c.cfg:1:1: is not a calibration config"),
    ("fakequant_precision_mode: HALF", "c.cfg:1:27: is not a calibration config"),
    ("version: 2", "c.cfg: version must be 1, got 2"),
    ("joint_quant: true", "c.cfg: joint_quant: joint quantization of Eltwise operators is not supported; remove it"),
    ("enable_auto_nuq: true", "c.cfg: enable_auto_nuq: non-uniform quantization (NUQ) is not supported"),
    ('nuq_config { mapping_file: "m.json" nuq_quantize { num_steps: 32 } }', "c.cfg: nuq_config: non-uniform"),
    ('skip_fusion_layers: ["a", "a"]', "c.cfg: skip_fusion_layers has 'a' 2 times; name it once"),
    (common("nuq_quantize { num_steps: 32 num_of_iteration: 1 }"), f"{IN_COMMON}nuq_quantize: non-uniform quantizat"),
    (common("ada_quantize { num_iteration: 100 }"), f"{IN_COMMON}ada_quantize: is for PyTorch only"),
    (common("weight_compress_only: true"), f"{IN_COMMON}weight_compress_only: weights are not quantized without"),
    (common("arq_quantize { asymmetric: true }"), f"{IN_COMMON}arq_quantize.asymmetric: weights have no offset"),
    (common("arq_quantize { quant_bits: 4 }"), f"{IN_COMMON}num_bits of a weight must be 8, 7 or 6, got 4"),
    (common("ifmr_quantize { dst_type: INT16 }"), f"{IN_COMMON}dst_type INT16 is not supported; use INT8, or skip"),
    (common("hfmg_quantize { dst_type: INT16 }"), f"{IN_COMMON}dst_type INT16 is not supported"),
    (common("hfmg_quantize { num_of_bins: 100 }"), f"{IN_COMMON}num_of_bins 100 must be in [1024, 2048, 4096, 8192]"),
    (
        common("ifmr_quantize { max_percentile: 0.5 }"),
        f"{IN_COMMON}max_percentile must be greater than 0.5 and less than or equal to 1.0, got 0.5",
    ),
    (common("ifmr_quantize { search_range_start: 2 }"), f"{IN_COMMON}search_range[0] must be less than search_range["),
    (common("ifmr_quantize { search_step: 9 }"), f"{IN_COMMON}search_step must be less than or equal to (search_range"),
    (common("dmq_balancer { migration_strength: 0.9 }"), f"{IN_COMMON}dmq_balancer_param must be in [0.2, 0.8]"),
    (kind("MatMul", "arq_quantize { quant_bits: 5 }"), "c.cfg: override_layer_types 'MatMul': num_bits of a weight"),
    (layer("fc", "") + layer("fc", ""), "c.cfg: override_layer_configs: 'fc' appears twice"),
    (kind("MatMul", "") * 2, "c.cfg: override_layer_types: 'MatMul' appears twice"),
    ("override_layer_configs { calibration_config {} }", "c.cfg: override_layer_configs: an entry has no layer_name"),
    ("override_layer_types {}", "c.cfg: override_layer_types: an entry has no layer_type"),
    (TENSOR % "input_index: 0", "c.cfg: tensor_quantize: an entry has no layer_name; say for which input it is"),
    (TENSOR % 'layer_name: "max"', "c.cfg: tensor_quantize: an entry has no input_index"),
    ((TENSOR % 'layer_name: "max" input_index: 0') * 2, "c.cfg: tensor_quantize: 'max:0' appears twice"),
]
UNFIT = [
    (
        'skip_layers: "conv9"',
        "c.cfg: Layer conv9 does not exist in the graph, as a layer to quantize; did you mean 'conv'?",
    ),
    (
        'skip_layers: "Z"',
        "c.cfg: Layer Z does not exist in the graph, as a layer to quantize; `autoquant inspect` lists",
    ),
    ('skip_layer_types: "Conv2d"', "c.cfg: layer type Conv2d does not support quant.; did you mean 'Conv2D'?"),
    ('skip_layer_types: "MaxPool"', "c.cfg: layer type MaxPool does not support quant.; "),
    (layer("con", ""), "c.cfg: Layer con does not exist in the graph, as a layer to quantize; did you mean 'conv'?"),
    (layer("shared", ""), "c.cfg: layer shared does not support quant.: its weight 'w' is shared with 'conv9'; remove"),
    (layer("max", ""), "c.cfg: layer max does not support quant.: only its inputs can be, by tensor_quantize: it is a"),
    (kind("Relu", ""), "c.cfg: layer type Relu does not support quant.; "),
    (layer("fc", "arq_quantize { channel_wise: true }"), "c.cfg: fc: channel_wise must be false for layer type MatMul"),
    (
        kind("MatMul", "arq_quantize { channel_wise: true }"),
        "c.cfg: fc: channel_wise must be false for layer type MatMul",
    ),
    (layer("depthwise", "arq_quantize { quant_bits: 6 }"), "c.cfg: depthwise: weights of 6 bits are for Conv2D only"),
    (layer("scores", "ifmr_quantize { asymmetric: true }"), "c.cfg: scores: asymmetric must be false: both of its fac"),
    (layer("pool", "dmq_balancer {}"), "c.cfg: pool: layer type AvgPool has no weight to balance"),
    (
        TENSOR % 'layer_name: "fc" input_index: 0',
        "c.cfg: tensor_quantize: layer fc is a MatMul: tensor_quantize is for",
    ),
    (
        TENSOR % 'layer_name: "max" input_index: 1',
        "c.cfg: tensor_quantize: input 1 of layer max cannot be quantized; it",
    ),
    (
        TENSOR % 'layer_name: "add" input_index: 0' + TENSOR % 'layer_name: "add" input_index: 1',
        "c.cfg: add:1: 'add:0' of the same operator is quantized already; only one input of an operator can be",
    ),
    (
        TENSOR % 'layer_name: "mix" input_index: 0',
        "c.cfg: tensor_quantize: Layer mix does not exist in the graph, as a",
    ),
    (
        'skip_layers: ["conv", "scores"] skip_layer_types: ["Conv2D", "DepthwiseConv2dNative", "MatMul", "AvgPool"]',
        "c.cfg: Except skip_layers, no layer needs to quantize.; skip fewer layers",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_refused_input_is_named(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_cfg(text, "c.cfg")
    assert str(caught.value).startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize(("text", "message"), UNFIT, ids=[message[:60] for _, message in UNFIT])
def test_settings_that_the_model_cannot_have(found: Survey, text: str, message: str) -> None:
    cfg = parse_cfg(text, "c.cfg")
    with pytest.raises(PlanError) as caught:
        plan_of(cfg, found)
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def test_layers_that_stay_in_float_anyway_can_be_skipped(found: Survey) -> None:
    cfg = parse_cfg('skip_layers: "shared" skip_layers: "max" skip_layer_types: "Conv3D"', "c.cfg")
    assert plan_of(cfg, found) == plan_of(CalibrationCfg("c.cfg"), found)


WORD = st.sampled_from(MIXED.split())


@given(st.lists(WORD, max_size=25), st.integers(0, len(MIXED)), st.text(max_size=3))
def test_anything_is_a_cfg_or_a_plan_error(words: list[str], cut: int, inserted: str) -> None:
    for text in (" ".join(words), MIXED[:cut] + inserted + MIXED[cut:], MIXED[:cut]):
        try:
            assert isinstance(parse_cfg(text, "c.cfg"), CalibrationCfg)
        except PlanError as error:
            assert error.where.startswith("c.cfg") and error.hint


def test_without_a_cfg(found: Survey) -> None:
    cfg = CalibrationCfg("create_quant_config", 3, activation_offset=False, skip_layers=("conv2", "pool"))
    assert plan_of(cfg, found) == Plan(
        {
            "conv": LayerPlan(asymmetric=False),
            "conv2": None,
            "depthwise": LayerPlan(asymmetric=False),
            "fc": LayerPlan(asymmetric=False, channel_wise=False),
            "pool": None,
            "scores": LayerPlan(asymmetric=False, channel_wise=False),
        },
        3,
    )
    with pytest.raises(ValueError, match="batch_num must be greater than zero, got 0"):
        CalibrationCfg("create_quant_config", 0)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cfg"
    with pytest.raises(PlanError, match=r"calibration.cfg: cannot be read .*; give a calibration config"):
        load_cfg(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"calibration.cfg: cannot be read"):
        load_cfg(path)
    path.write_bytes(b"\xef\xbb\xbfbatch_num: 5\r\n# Windows\r\ndo_fusion: true\r\n")
    assert load_cfg(path) == CalibrationCfg(str(path), batch_num=5)
    path.write_text("batch_num: 5 # größer", encoding="utf-8")
    assert load_cfg(path) == CalibrationCfg(str(path), batch_num=5)
