"""AMCT's simplified configuration, a text protobuf `.cfg`, and the plan that it means for a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoquant.calibration.plan import LayerPlan, Plan, check_plan
from autoquant.errors import PlanError, did_you_mean
from autoquant.formats.calibration_cfg_proto import overrides, present_fields, read_message, settings, tensor_settings
from autoquant.formats.layer_settings import FP16, Given, unknown_input, with_defaults
from autoquant.formats.strict import read_text
from autoquant.model.layer import Layer, Survey
from autoquant.model.model import EVERYTHING, Fusion
from autoquant.model.operators import OPERATORS

TYPES = tuple(name for name, operator in OPERATORS.items() if not operator.tensor_only)
"""Types of layers that can have settings."""


@dataclass(frozen=True)
class CalibrationCfg:
    """The settings of a .cfg at `where`, or the arguments of create_quant_config instead.

    `common` are settings for every layer that can have them, `types` those of one operator's layers, which go before,
    and `layers` those of one layer, which go before all; where none says `asymmetric`, `activation_offset` does.
    `tensors` are the inputs to quantize, `<operator>:<index>`; of the others only `activation_offset` is for them.
    """

    where: str
    batch_num: int = 1
    activation_offset: bool = True
    skip_layers: tuple[str, ...] = ()
    skip_layer_types: tuple[str, ...] = ()
    fusion: Fusion = EVERYTHING
    fp16_scales: bool = False
    common: Given = field(default_factory=dict)
    types: Mapping[str, Given] = field(default_factory=dict)
    layers: Mapping[str, Given] = field(default_factory=dict)
    tensors: Mapping[str, Given] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_num < 1:
            raise ValueError(f"batch_num must be greater than zero, got {self.batch_num}")


def load_cfg(path: Path) -> CalibrationCfg:
    """Read a .cfg as `parse_cfg` does. Raises PlanError."""
    return parse_cfg(read_text(path, hint="give a calibration config, a .cfg"), str(path))


def parse_cfg(text: str, where: str) -> CalibrationCfg:
    """Read the text of a .cfg: message AMCTConfig of calibration_config_tf.proto.

    Of `arq_quantize` and its like, and of `ifmr_quantize` and `hfmg_quantize`, the last one counts, as protobuf has
    it; anything else that appears twice is refused. `skip_approximation_layers` has no effect: no operator is
    approximated. Raises PlanError with line and column where the text cannot be read, and for what is out of range or
    not done here: `joint_quant`, NUQ, `ada_quantize`, INT16.
    """
    present = present_fields(read_message(text, where), where)
    if present.get("version", 1) != 1:
        raise PlanError(where, f"version must be 1, got {present['version']}", hint="set it to 1")
    skipped = present.get("skip_fusion_layers", ())
    for name, times in Counter(skipped).items():
        if times > 1:
            raise PlanError(where, f"skip_fusion_layers has '{name}' {times} times", hint="name it once")
    try:
        return CalibrationCfg(
            where,
            batch_num=present.get("batch_num", 1),
            activation_offset=present.get("activation_offset", True),
            skip_layers=tuple(present.get("skip_layers", ())),
            skip_layer_types=tuple(present.get("skip_layer_types", ())),
            fusion=Fusion(present.get("do_fusion", True), frozenset(skipped)),
            fp16_scales=present.get("fakequant_precision_mode") == FP16,
            common=settings(present["common_config"], f"{where}: common_config") if "common_config" in present else {},
            types=overrides(present.get("override_layer_types", ()), "layer_type", f"{where}: override_layer_types"),
            layers=overrides(
                present.get("override_layer_configs", ()), "layer_name", f"{where}: override_layer_configs"
            ),
            tensors=tensor_settings(present.get("tensor_quantize", ()), f"{where}: tensor_quantize"),
        )
    except ValueError as error:
        raise PlanError(where, str(error), hint="correct the value") from None


def plan_of(cfg: CalibrationCfg, survey: Survey) -> Plan:
    """The plan of a .cfg for a model, opened with its `fusion`: all layers but those that it skips.

    Raises PlanError for names and types that the model does not have, for settings that a layer named by itself or by
    its type cannot have, for two inputs of one operator, and where no layer is left.
    """
    tensors = {layer.name: layer for layer in survey.tensors}
    _check_names(cfg, survey)
    plans = {layer.name: _layer_plan(cfg, layer) for layer in survey.layers}
    for name, given in cfg.tensors.items():
        if name not in tensors:
            raise unknown_input(f"{cfg.where}: tensor_quantize", name, survey.by_name)
        plans[name] = with_defaults(tensors[name], given, otherwise=_offset(cfg), where=f"{cfg.where}: {name}")
    plan = Plan(plans, cfg.batch_num, cfg.fusion, cfg.fp16_scales)
    if not plan.int8:
        raise PlanError(cfg.where, "Except skip_layers, no layer needs to quantize.", hint="skip fewer layers")
    try:
        check_plan(plan, survey.by_name)
    except PlanError as error:
        raise PlanError(f"{cfg.where}: {error.where}", error.what, hint=error.hint) from None
    return plan


def _layer_plan(cfg: CalibrationCfg, layer: Layer) -> LayerPlan | None:
    if layer.name in cfg.skip_layers or layer.op in cfg.skip_layer_types:
        return None
    given = {**cfg.types.get(layer.op, {}), **cfg.layers.get(layer.name, {})}
    return with_defaults(layer, given, otherwise={**_offset(cfg), **cfg.common}, where=f"{cfg.where}: {layer.name}")


def _offset(cfg: CalibrationCfg) -> Given:
    return {"asymmetric": cfg.activation_offset}


def _check_names(cfg: CalibrationCfg, survey: Survey) -> None:
    """Raise PlanError for a name or type that the model does not have; what is not quantized anyway can be skipped."""
    layers = [layer.name for layer in survey.layers]
    idle = {layer.node: f"only its inputs can be, by tensor_quantize: it is a {layer.op}" for layer in survey.tensors}
    idle |= {rejected.name: rejected.reason for rejected in survey.rejected}
    for name in (*cfg.skip_layers, *cfg.layers):
        if name not in layers and name not in idle:
            hint = did_you_mean(name, layers, otherwise="`autoquant inspect` lists the layers")
            raise PlanError(cfg.where, f"Layer {name} does not exist in the graph, as a layer to quantize", hint=hint)
    for name in cfg.layers:
        if name not in layers:
            hint = "remove it from override_layer_configs"
            raise PlanError(cfg.where, f"layer {name} does not support quant.: {idle[name]}", hint=hint)
    for name in (*cfg.skip_layer_types, *cfg.types):
        if name not in TYPES:
            hint = did_you_mean(name, TYPES, otherwise="known are " + ", ".join(TYPES))
            raise PlanError(cfg.where, f"layer type {name} does not support quant.", hint=hint)
