"""AMCT's simplified configuration, a text protobuf `.cfg`, and the plan that it means for a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from autoquant.calibration.plan import LayerPlan, Plan, check_plan
from autoquant.calibration.ranges import RANGES
from autoquant.errors import PlanError, did_you_mean
from autoquant.formats.layer_settings import AMCT, FP16, Given, unknown_input, with_defaults
from autoquant.formats.strict import read_text
from autoquant.formats.text_proto import parse_text, shipped_message
from autoquant.model.layer import Layer, Survey
from autoquant.model.model import EVERYTHING, Fusion
from autoquant.model.operators import OPERATORS

T = TypeVar("T")

TYPES = tuple(name for name, operator in OPERATORS.items() if not operator.tensor_only)
"""Types of layers that can have settings."""
MIGRATION_STRENGTH = 0.5
"""The migration strength of a `dmq_balancer {}` without a number."""
NUQ = "non-uniform quantization (NUQ) is not supported, as hardware gains nothing by it"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "ada_quantize": "is for PyTorch only",
        "enable_auto_nuq": NUQ,
        "joint_quant": "joint quantization of Eltwise operators is not supported",
        "nuq_config": NUQ,
        "nuq_quantize": NUQ,
        "weight_compress_only": "weights are not quantized without their activation",
    }
)
"""Fields that are not supported, which can only be absent or false, and why."""
RENAMED: Mapping[str, str] = MappingProxyType(
    {"search_range_start": "search_start", "search_range_end": "search_end", "quant_bits": "weight_bits"}
)
"""Fields of AMCT -> their names here."""


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
    what = "is not a calibration config (message AMCTConfig)"
    hint = "correct the text, of which calibration_config_tf.proto gives the form"
    for last_wins in (False, True):  # once without oneofs, which finds what appears twice, and once with them
        message = shipped_message("calibration_config_tf.proto", "AMCTConfig", oneofs=last_wins)()
        parse_text(text, message, where, what=what, hint=hint, last_wins=last_wins)
    present = _present(message, where)
    if present.get("version", 1) != 1:
        raise PlanError(where, f"version must be 1, got {present['version']}", hint="set it to 1")
    skipped = present.get("skip_fusion_layers", ())
    for name, times in Counter(skipped).items():
        if times > 1:
            raise PlanError(where, f"skip_fusion_layers has '{name}' {times} times", hint="name it once")
    return _checked(
        lambda: CalibrationCfg(
            where,
            batch_num=present.get("batch_num", 1),
            activation_offset=present.get("activation_offset", True),
            skip_layers=tuple(present.get("skip_layers", ())),
            skip_layer_types=tuple(present.get("skip_layer_types", ())),
            fusion=Fusion(present.get("do_fusion", True), frozenset(skipped)),
            fp16_scales=present.get("fakequant_precision_mode") == FP16,
            common=_settings(present["common_config"], f"{where}: common_config") if "common_config" in present else {},
            types=_overrides(present, "override_layer_types", "layer_type", where),
            layers=_overrides(present, "override_layer_configs", "layer_name", where),
            tensors=_tensors(present.get("tensor_quantize", ()), f"{where}: tensor_quantize"),
        ),
        where,
    )


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


def _present(message: Any, where: str) -> dict[str, Any]:
    """The fields that are there, by name, enums by their names too. Raises PlanError for one that is not supported."""
    present = {
        field.name: field.enum_type.values_by_number[value].name if field.enum_type else value
        for field, value in message.ListFields()
    }
    for name in filter(UNSUPPORTED.get, present):
        if present[name] is not False:
            raise PlanError(where, f"{name}: {UNSUPPORTED[name]}", hint="remove it")
    return present


def _settings(message: Any, where: str) -> Given:
    """The settings of a layer in a CalibrationConfig. Raises PlanError."""
    present = _present(message, where)
    given = _activation(present, where)
    if "arq_quantize" in present:
        arq = _present(present["arq_quantize"], where)
        if arq.pop("asymmetric", False):
            raise PlanError(where, "arq_quantize.asymmetric: weights have no offset", hint="set it to false")
        given |= _renamed(arq)
    if "dmq_balancer" in present:
        given["dmq"] = _present(present["dmq_balancer"], where).get("migration_strength", MIGRATION_STRENGTH)
    _checked(lambda: LayerPlan(**given), where)
    return given


def _overrides(present: Mapping[str, Any], field: str, key: str, where: str) -> Mapping[str, Given]:
    """The settings of each layer, or type of layers, which `key` of the entries of a field names. Raises PlanError."""
    found: dict[str, Given] = {}
    where = f"{where}: {field}"
    for entry in present.get(field, ()):
        name = getattr(entry, key)
        if not name:
            raise PlanError(where, f"an entry has no {key}", hint="say for which it is")
        if name in found:
            raise PlanError(where, f"'{name}' appears twice", hint="remove one of the two")
        found[name] = _settings(entry.calibration_config, f"{where} '{name}'")
    return found


def _tensors(entries: Iterable[Any], where: str) -> Mapping[str, Given]:
    """The settings of each input, `<operator>:<index>`. Raises PlanError."""
    found: dict[str, Given] = {}
    for entry in entries:
        for key in ("layer_name", "input_index"):
            if not entry.HasField(key):
                raise PlanError(where, f"an entry has no {key}", hint="say for which input it is")
        name = f"{entry.layer_name}:{entry.input_index}"
        if name in found:
            raise PlanError(where, f"'{name}' appears twice", hint="remove one of the two")
        found[name] = _activation(_present(entry, where), f"{where} '{name}'")
    return found


def _activation(present: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings in ifmr_quantize or hfmg_quantize."""
    name = next((name for name in AMCT if f"{name}_quantize" in present), None)
    if name is None:
        return {}
    values = _renamed(_present(present[f"{name}_quantize"], where))
    if values.pop("dst_type", "INT8") != "INT8":
        raise PlanError(where, "dst_type INT16 is not supported", hint="use INT8, or skip the layer")
    given = {"asymmetric": values.pop("asymmetric")} if "asymmetric" in values else {}
    return {**given, "activation": _checked(lambda: RANGES[name](**values), where)}


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in values.items()}


def _checked(make: Callable[[], T], where: str) -> T:
    try:
        return make()
    except ValueError as error:
        raise PlanError(where, str(error), hint="correct the value") from None
