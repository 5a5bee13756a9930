"""AMCT's simplified configuration as messages of calibration_config_tf.proto, and the settings of layers in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from autoquant.calibration.plan import LayerPlan
from autoquant.calibration.ranges import RANGES
from autoquant.errors import PlanError
from autoquant.formats.layer_settings import AMCT, Given
from autoquant.formats.text_proto import parse_text, shipped_message

T = TypeVar("T")

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


def read_message(text: str, where: str) -> Any:
    """An AMCTConfig, read once without oneofs to find what appears twice, and once with them. Raises PlanError."""
    what = "is not a calibration config (message AMCTConfig)"
    for last_wins in (False, True):
        message = shipped_message("calibration_config_tf.proto", "AMCTConfig", oneofs=last_wins)()
        hint = "correct the text, of which calibration_config_tf.proto gives the form"
        parse_text(text, message, where, what=what, hint=hint, last_wins=last_wins)
    return message


def present_fields(message: Any, where: str) -> dict[str, Any]:
    """The fields that are there, by name, enums by their names too. Raises PlanError for one that is not supported."""
    present = {
        field.name: field.enum_type.values_by_number[value].name if field.enum_type else value
        for field, value in message.ListFields()
    }
    for name in filter(UNSUPPORTED.get, present):
        if present[name] is not False:
            raise PlanError(where, f"{name}: {UNSUPPORTED[name]}", hint="remove it")
    return present


def settings(message: Any, where: str) -> Given:
    """The settings of a layer in a CalibrationConfig. Raises PlanError."""
    present = present_fields(message, where)
    given = _activation(present, where)
    if "arq_quantize" in present:
        arq = present_fields(present["arq_quantize"], where)
        if arq.pop("asymmetric", False):
            raise PlanError(where, "arq_quantize.asymmetric: weights have no offset", hint="set it to false")
        given |= _renamed(arq)
    if "dmq_balancer" in present:
        given["dmq"] = present_fields(present["dmq_balancer"], where).get("migration_strength", MIGRATION_STRENGTH)
    _checked(lambda: LayerPlan(**given), where)
    return given


def overrides(entries: Iterable[Any], key: str, where: str) -> Mapping[str, Given]:
    """The settings of each layer, or type of layers, which `key` names. Raises PlanError."""
    found: dict[str, Given] = {}
    for entry in entries:
        name = getattr(entry, key)
        if not name:
            raise PlanError(where, f"an entry has no {key}", hint="say for which it is")
        if name in found:
            raise PlanError(where, f"'{name}' appears twice", hint="remove one of the two")
        found[name] = settings(entry.calibration_config, f"{where} '{name}'")
    return found


def tensor_settings(entries: Iterable[Any], where: str) -> Mapping[str, Given]:
    """The settings of each input, `<operator>:<index>`. Raises PlanError."""
    found: dict[str, Given] = {}
    for entry in entries:
        for key in ("layer_name", "input_index"):
            if not entry.HasField(key):
                raise PlanError(where, f"an entry has no {key}", hint="say for which input it is")
        name = f"{entry.layer_name}:{entry.input_index}"
        if name in found:
            raise PlanError(where, f"'{name}' appears twice", hint="remove one of the two")
        found[name] = _activation(present_fields(entry, where), f"{where} '{name}'")
    return found


def _activation(present: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings in ifmr_quantize or hfmg_quantize."""
    name = next((name for name in AMCT if f"{name}_quantize" in present), None)
    if name is None:
        return {}
    values = _renamed(present_fields(present[f"{name}_quantize"], where))
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
