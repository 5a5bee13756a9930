"""Reading the objects of a config.json into a plan, checked against the layers of a model where they are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import CORRECTIONS, LayerPlan, Plan
from autoquant.calibration.ranges import RangeAlgorithm
from autoquant.errors import InputError, did_you_mean
from autoquant.formats.config_layer import read_activation, read_layer, read_ours
from autoquant.formats.layer_settings import FP16, Given, no_input, settled
from autoquant.formats.strict import Fields
from autoquant.model.layer import Layer
from autoquant.model.model import Fusion
from autoquant.model.operators import is_tensor

EXTRA = "autoquant"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
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
        *UNSUPPORTED,
        "skip_fusion_layers",
        "tensor_quantize",
        "version",
    }
)


def read_plan(fields: Fields, layers: Mapping[str, Layer], rejected: Mapping[str, str]) -> Plan:
    """The plan of a config.json, as `parse_config` describes it; `layers` are empty where they are not known.

    `rejected` are operators that cannot be quantized, each with the reason. Global keys are read first; the keys that
    are left are layers.
    """
    version = fields.take("version", 1)
    fields.require(version == 1, "version", f"version must be 1, got {version}", hint="set it to 1")
    for key, reason in UNSUPPORTED.items():
        fields.require(not fields.take(key, False), key, f"{key} true: {reason}", hint="set it to false")
    offset = fields.take("activation_offset", True)
    extra = fields.sub(EXTRA)
    exact = extra.optional("exact", bool, hint="true to calibrate on all values, false on sketches")
    equalize = extra.take("equalize", False)
    correction = extra.only("bias_correction", CORRECTIONS, "none")
    algorithms = extra.sub("activation_quant_params")
    extra.done()
    ours = {name: read_ours(algorithms.nested(value, name)) for name, value in algorithms.rest().items()}
    batch_num = fields.take("batch_num", 1)
    what = f"batch_num must be greater than zero, got {batch_num}"
    fields.require(batch_num > 0, "batch_num", what, hint="for example 1")
    fusion = _fusion(fields)
    fp16 = fields.only("fakequant_precision_mode", ["DEFAULT", FP16], "DEFAULT") == FP16
    plans = dict(_Layers(fields, layers, rejected, offset, ours).read())
    for name in (name for name in ours if name not in plans):
        raise algorithms.error(name, "no such layer in this file", hint="remove the entry")
    return fields.build(lambda: Plan(plans, batch_num, fusion, fp16, exact, equalize, correction))


def _fusion(fields: Fields) -> Fusion:
    """The fusions before quantization."""
    enabled = fields.take("do_fusion", True)
    skipped: list[Any] = fields.take("skip_fusion_layers", [])
    right = all(type(name) is str for name in skipped)
    what = f"expected a list of str, got {skipped!r}"
    fields.require(right, "skip_fusion_layers", what, hint="give names of layers")
    for name, times in Counter(skipped).items():
        fields.require(times == 1, "skip_fusion_layers", f"'{name}' is there {times} times", hint="name it once")
    return Fusion(enabled, frozenset(skipped))


@dataclass(frozen=True)
class _Layers:
    """The layers in a config.json: `ours` are their range algorithms that AMCT does not have."""

    fields: Fields
    known: Mapping[str, Layer]
    rejected: Mapping[str, str]
    offset: bool
    ours: Mapping[str, RangeAlgorithm]

    def read(self) -> Iterator[tuple[str, LayerPlan | None]]:
        """Every layer and input with its settings; takes all keys that are left."""
        found: set[str] = set()
        tensors: list[Any] = self.fields.take("tensor_quantize", [])
        for number, entry in enumerate(tensors):
            name, settings = self._tensor(self.fields.nested(entry, f"tensor_quantize[{number}]"))
            what = f"tensor_quantize has '{name}' twice"
            self.fields.require(name not in found, f"tensor_quantize[{number}]", what, hint="remove one of the two")
            found.add(name)
            yield name, settings
        for name, value in self.fields.rest().items():
            yield name, self._layer(name, value)

    def _tensor(self, fields: Fields) -> tuple[str, LayerPlan]:
        operator, index = fields.needed("layer_name", str), fields.needed("input_index", int)
        fields.require(index >= 0, "input_index", f"must be 0 or more, got {index}", hint="for example 0")
        name = f"{operator}:{index}"
        if self.known and name not in self.known:
            raise no_input(fields.where, name, self.known)
        given = read_activation(fields.sub("activation_quant_params"))
        fields.done()
        return name, self._settings(name, given, channel_wise=False, fields=fields)

    def _layer(self, name: str, value: object) -> LayerPlan | None:
        if name in self.rejected:
            what = f"layer {name} does not support quant.: {self.rejected[name]}"
            raise self.fields.error(name, what, hint="remove it, which leaves it in float")
        if is_tensor(name) or (self.known and name not in self.known):
            raise self._no_layer(name)
        fields = self.fields.nested(value, name)
        channel_wise = "weight_quant_params" in fields
        enabled, given = read_layer(fields)
        settings = self._settings(name, given, channel_wise=channel_wise, fields=fields)
        return settings if enabled else None

    def _settings(self, name: str, given: Given, *, channel_wise: bool, fields: Fields) -> LayerPlan:
        """The given settings and defaults; `channel_wise` is the default of a layer that is not known."""
        if name in self.ours:
            given = {**given, "activation": self.ours[name]}
        if name in self.known:
            return settled(self.known[name], given, otherwise={"asymmetric": self.offset}, where=fields.where)
        return LayerPlan(**{"asymmetric": self.offset, "channel_wise": channel_wise, **given})

    def _no_layer(self, name: str) -> InputError:
        """The error for a key that is neither a setting nor a layer."""
        what = f"'{name}' is an invalid layer name or parameter"
        if any(layer.tensor_only and layer.node == name for layer in self.known.values()):
            what = f"layer {name} does not support quant."
            hint = "only its inputs can be quantized: name it in tensor_quantize"
        elif is_tensor(name):
            hint = "inputs of operators stand in tensor_quantize"
        else:
            known = [known for known in (*self.known, *GLOBAL) if not is_tensor(known)]
            hint = did_you_mean(name, known, otherwise="`autoquant inspect` lists the layers")
        return self.fields.error(name, what, hint=hint)
