"""Reading the objects of a config.json into a plan, checked against the layers of a model where they are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import CORRECTIONS, LayerPlan, Plan
from autoquant.calibration.ranges import RangeAlgorithm
from autoquant.errors import InputError, did_you_mean
from autoquant.formats.activation import FP16
from autoquant.formats.config_layer import read_activation, read_layer, read_ours
from autoquant.formats.layer_settings import Given, no_input, settled
from autoquant.formats.strict import Fields
from autoquant.model.fusion import Fusion
from autoquant.model.layer import Layer
from autoquant.model.names import is_tensor

EXTRA = "autoquant"
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "joint_quant": "joint quantization of Eltwise operators is not supported",
        "weight_offset": "weights are symmetric: they have no offset",
    }
)
"""Switches of AMCT that can only be off, and why."""
GLOBAL = frozenset(
    {
        "activation_offset",
        "batch_num",
        "do_fusion",
        EXTRA,
        "fakequant_precision_mode",
        *REFUSED,
        "skip_fusion_layers",
        "tensor_quantize",
        "version",
    }
)


def read_plan(fields: Fields, layers: Mapping[str, Layer], rejected: Mapping[str, str]) -> Plan:
    """The plan of a config.json, as `parse_config` describes it; `layers` are empty where they are not known.

    `rejected` are operators that cannot be quantized, each with the reason.
    """
    reading = _Reading(fields, layers, rejected)
    batch_num, fusion, fp16 = reading.batch_num(), reading.fusion(), reading.fp16()
    plans = reading.layers()
    return fields.build(
        lambda: Plan(plans, batch_num, fusion, fp16, reading.exact, reading.equalize, reading.bias_correction)
    )


class _Reading:
    """A config.json while it is read: global keys first, what is left are layers."""

    def __init__(self, fields: Fields, layers: Mapping[str, Layer], rejected: Mapping[str, str]) -> None:
        self._fields = fields
        self._layers = layers
        self._rejected = rejected
        version = fields.take("version", 1)
        fields.require(version == 1, "version", f"version must be 1, got {version}", hint="set it to 1")
        for key, reason in REFUSED.items():
            fields.require(not fields.take(key, False), key, f"{key} true: {reason}", hint="set it to false")
        self._offset = fields.take("activation_offset", True)
        extra = fields.sub(EXTRA)
        self.exact = extra.optional("exact", bool, hint="true to calibrate on all values, false on sketches")
        self.equalize = extra.take("equalize", False)
        self.bias_correction = extra.only("bias_correction", CORRECTIONS, "none")
        self._algorithms = extra.sub("activation_quant_params")
        extra.done()
        self._ours: dict[str, RangeAlgorithm] = {
            name: read_ours(self._algorithms.nested(value, name)) for name, value in self._algorithms.rest().items()
        }

    def batch_num(self) -> int:
        """The number of calibration batches."""
        number = self._fields.take("batch_num", 1)
        what = f"batch_num must be greater than zero, got {number}"
        self._fields.require(number > 0, "batch_num", what, hint="for example 1")
        return number

    def fusion(self) -> Fusion:
        """The fusions before quantization."""
        enabled = self._fields.take("do_fusion", True)
        skipped: list[Any] = self._fields.take("skip_fusion_layers", [])
        right = all(type(name) is str for name in skipped)
        what = f"expected a list of str, got {skipped!r}"
        self._fields.require(right, "skip_fusion_layers", what, hint="give names of layers")
        for name, times in Counter(skipped).items():
            what = f"'{name}' is there {times} times"
            self._fields.require(times == 1, "skip_fusion_layers", what, hint="name it once")
        return Fusion(enabled, frozenset(skipped))

    def fp16(self) -> bool:
        """Whether scales of activations are rounded to float16."""
        return self._fields.only("fakequant_precision_mode", ["DEFAULT", FP16], "DEFAULT") == FP16

    def layers(self) -> dict[str, LayerPlan | None]:
        """Every layer and input with its settings; takes all keys that are left."""
        plans: dict[str, LayerPlan | None] = {}
        tensors: list[Any] = self._fields.take("tensor_quantize", [])
        for number, entry in enumerate(tensors):
            name, settings = self._tensor(self._fields.nested(entry, f"tensor_quantize[{number}]"))
            what = f"tensor_quantize has '{name}' twice"
            self._fields.require(name not in plans, f"tensor_quantize[{number}]", what, hint="remove one of the two")
            plans[name] = settings
        for name, value in self._fields.rest().items():
            plans[name] = self._layer(name, value)
        for name in (name for name in self._ours if name not in plans):
            raise self._algorithms.error(name, "no such layer in this file", hint="remove the entry")
        return plans

    def _tensor(self, fields: Fields) -> tuple[str, LayerPlan]:
        operator, index = fields.needed("layer_name", str), fields.needed("input_index", int)
        fields.require(index >= 0, "input_index", f"must be 0 or more, got {index}", hint="for example 0")
        name = f"{operator}:{index}"
        if self._layers and name not in self._layers:
            raise no_input(fields.where, name, self._layers)
        given = read_activation(fields.sub("activation_quant_params"))
        fields.done()
        return name, self._settings(name, given, channel_wise=False, fields=fields)

    def _layer(self, name: str, value: object) -> LayerPlan | None:
        if name in self._rejected:
            what = f"layer {name} does not support quant.: {self._rejected[name]}"
            raise self._fields.error(name, what, hint="remove it, which leaves it in float")
        if is_tensor(name) or (self._layers and name not in self._layers):
            raise _no_layer(self._fields, name, self._layers)
        fields = self._fields.nested(value, name)
        channel_wise = "weight_quant_params" in fields
        enabled, given = read_layer(fields)
        settings = self._settings(name, given, channel_wise=channel_wise, fields=fields)
        return settings if enabled else None

    def _settings(self, name: str, given: Given, *, channel_wise: bool, fields: Fields) -> LayerPlan:
        """The given settings and defaults; `channel_wise` is the default of a layer that is not known."""
        if name in self._ours:
            given = {**given, "activation": self._ours[name]}
        if name in self._layers:
            return settled(self._layers[name], given, otherwise={"asymmetric": self._offset}, where=fields.where)
        return LayerPlan(**{"asymmetric": self._offset, "channel_wise": channel_wise, **given})


def _no_layer(fields: Fields, name: str, layers: Mapping[str, Layer]) -> InputError:
    """The error for a key that is neither a setting nor a layer."""
    if any(layer.tensor_only and layer.node == name for layer in layers.values()):
        hint = "only its inputs can be quantized: name it in tensor_quantize"
        return fields.error(name, f"layer {name} does not support quant.", hint=hint)
    if is_tensor(name):
        what = f"'{name}' is an invalid layer name or parameter"
        return fields.error(name, what, hint="inputs of operators stand in tensor_quantize")
    known = [known for known in (*layers, *GLOBAL) if not is_tensor(known)]
    hint = did_you_mean(name, known, otherwise="`autoquant inspect` lists the layers")
    return fields.error(name, f"'{name}' is an invalid layer name or parameter", hint=hint)
