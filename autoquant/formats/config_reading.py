"""Reads the objects of a config.json as a plan, checked against the layers of a model where they are known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import ACTIVATION_BITS, CORRECTIONS, ROUNDINGS, LayerPlan, Plan
from autoquant.calibration.ranges import RANGES, RangeAlgorithm
from autoquant.errors import InputError, PlanError, did_you_mean
from autoquant.formats.layer_settings import AMCT, FP16, Given, parameters, unknown_input, with_defaults
from autoquant.formats.strict import Fields
from autoquant.model.layer import Layer
from autoquant.model.model import Fusion
from autoquant.model.operators import is_tensor

EXTRA = "autoquant"
FLOAT_OPERATORS = "float_operators"
POWER_OF_TWO = "power_of_two"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "joint_quant": "joint quantization of Eltwise operators is not supported",
        "weight_offset": "weights are symmetric: they have no offset",
    }
)
"""Switches of AMCT that can only be off, and why."""
WTS_ALGO: Mapping[str, str] = MappingProxyType({"minmax": "arq_quantize", "mse": "mse", "octav": "octav"})
"""Weight algorithm -> wts_algo. AMCT has the first; the others are our own."""
UNSUPPORTED_WEIGHTS: Mapping[str, str] = MappingProxyType(
    {
        "nuq_quantize": "non-uniform quantization (nuq_quantize) is not supported, as hardware gains nothing by it",
        "ada_quantize": "ada_quantize is for PyTorch only",
    }
)
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
    rounding = extra.only("weight_rounding", ROUNDINGS, "nearest")
    correction = extra.only("bias_correction", CORRECTIONS, "none")
    training = extra.take("training", False)
    in_float = frozenset(_names(extra, FLOAT_OPERATORS)) if FLOAT_OPERATORS in extra else None
    shifted = _names(extra, POWER_OF_TWO)
    algorithms = extra.sub("activation_quant_params")
    extra.done()
    ours = {name: _read_ours(algorithms.nested(value, name)) for name, value in algorithms.rest().items()}
    batch_num = fields.take("batch_num", 1)
    what = f"batch_num must be greater than zero, got {batch_num}"
    fields.require(batch_num > 0, "batch_num", what, hint="for example 1")
    fusion = _fusion(fields)
    fp16 = fields.only("fakequant_precision_mode", ["DEFAULT", FP16], "DEFAULT") == FP16
    plans = dict(_Layers(fields, layers, rejected, offset, ours).read())
    for name in (name for name in ours if name not in plans):
        raise algorithms.error(name, "no such layer in this file", hint="remove the entry")
    for name in (name for name in shifted if name not in plans):
        raise extra.error(POWER_OF_TWO, f"no layer '{name}' in this file", hint="remove the entry")
    plans |= {name: replace(own, power_of_two=True) for name in shifted if (own := plans[name]) is not None}
    return fields.build(
        lambda: Plan(plans, batch_num, fusion, fp16, exact, equalize, rounding, correction, training, in_float)
    )


def _fusion(fields: Fields) -> Fusion:
    """The fusions before quantization."""
    enabled = fields.take("do_fusion", True)
    return Fusion(enabled, frozenset(_names(fields, "skip_fusion_layers")))


def _names(fields: Fields, key: str) -> list[str]:
    """The list of names under a key, each once; empty where it is not there."""
    names: list[Any] = fields.take(key, [])
    right = all(type(name) is str for name in names)
    fields.require(right, key, f"expected a list of str, got {names!r}", hint="give names of layers")
    for name, times in Counter(names).items():
        fields.require(times == 1, key, f"'{name}' is there {times} times", hint="name it once")
    return names


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
            raise unknown_input(fields.where, name, self.known)
        given = _read_activation(fields.sub("activation_quant_params"))
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
        try:
            enabled, given = _read_alike(json.dumps(value))
        except PlanError:
            enabled, given = _read_layer(fields)  # which says where
        settings = self._settings(name, given, channel_wise=channel_wise, fields=fields)
        return settings if enabled else None

    def _settings(self, name: str, given: Given, *, channel_wise: bool, fields: Fields) -> LayerPlan:
        """The given settings and defaults; `channel_wise` is the default of a layer that is not known."""
        if name in self.ours:
            given = {**given, "activation": self.ours[name]}
        if name in self.known:
            return with_defaults(self.known[name], given, otherwise={"asymmetric": self.offset}, where=fields.where)
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


@lru_cache(maxsize=4096)
def _read_alike(text: str) -> tuple[bool, Given]:
    """What `_read_layer` reads of an object: the layers of a file, and the files of a run, have few different ones."""
    return _read_layer(Fields(json.loads(text), "", PlanError))


def _read_layer(fields: Fields) -> tuple[bool, Given]:
    """Whether a layer is to be quantized, and the settings that its object gives. Raises PlanError."""
    enabled = fields.take("quant_enable", True)
    given = _read_activation(fields.sub("activation_quant_params")) | _read_weight(fields.sub("weight_quant_params"))
    given |= _present(dmq=fields.optional("dmq_balancer_param", float))
    fields.done()
    fields.build(lambda: LayerPlan(**given))
    return enabled, given


def _read_activation(fields: Fields) -> dict[str, Any]:
    """The settings in an activation_quant_params. Raises PlanError."""
    bits = fields.take("num_bits", 8)
    what = f"num_bits of an activation must be 8, or 16 for --target litert, got {bits}"
    fields.require(bits in ACTIVATION_BITS, "num_bits", what, hint="set it to 8, or leave the layer in float")
    asymmetric = fields.optional("asymmetric", bool, hint="true for an offset, false for none")
    activation = _read_amct(fields)
    fields.done()
    wide = {} if bits == 8 else {"activation_bits": bits}
    return _present(asymmetric=asymmetric, activation=activation, **wide)


def _read_ours(fields: Fields) -> RangeAlgorithm:
    """A range algorithm that AMCT does not have, its parameters called as in RANGES. Raises PlanError."""
    name, known = fields.take("act_algo", "minmax"), sorted(RANGES.keys() - AMCT.keys())
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"try '{near[0]}'" if near else f"it can be {', '.join(known)}; or install the package that it is of"
        raise fields.error("act_algo", f"unknown {name!r}", hint=hint)
    values = {key: fields.take(key, default) for key, default in asdict(RANGES[name]()).items()}
    fields.done()
    return fields.build(lambda: RANGES[name](**values))


def _read_amct(fields: Fields) -> RangeAlgorithm:
    name = fields.take("act_algo", "ifmr")
    fields.require(name in AMCT, "act_algo", f"act_algo must be ifmr or hfmg, got {name!r}", hint=_elsewhere(name))
    own = [key for key in AMCT[name] if key in fields] or [f"act_algo {name}"]
    other = [key for others in AMCT.keys() - {name} for key in AMCT[others] if key in fields]
    for key in other[:1]:
        what = f"{own} and {other} can not appear at same time"
        raise fields.error(key, what, hint="keep the parameters of one algorithm")
    default = _defaults(name)
    values = {key: fields.take(key, default[key]) for key in AMCT[name]}
    if "search_range" in values:
        start, end = _two_numbers(fields, values.pop("search_range"))
        values |= {"search_start": start, "search_end": end}
    return fields.build(lambda: RANGES[name](**values))


@cache
def _defaults(name: str) -> Mapping[str, Any]:
    """The defaults of an algorithm, cached: files have one in every layer."""
    return MappingProxyType(parameters(RANGES[name]()))


def _elsewhere(name: str) -> str:
    ours = 'put it under "autoquant": {"activation_quant_params": {...}}, without which AMCT can read the file'
    return ours if name in RANGES else "try ifmr, the default"


def _two_numbers(fields: Fields, bounds: list[Any]) -> tuple[float, float]:
    right = len(bounds) == 2 and all(type(bound) in (int, float) for bound in bounds)
    what = f"expected two numbers, got {bounds!r}"
    fields.require(right, "search_range", what, hint="for example [0.7, 1.3]")
    return fields.build(lambda: (float(bounds[0]), float(bounds[1])))


def _read_weight(fields: Fields) -> dict[str, Any]:
    bits = fields.optional("num_bits", int, hint="8, or for Conv2D 7 or 6")
    name = fields.optional("wts_algo", str, hint="for example 'arq_quantize'")
    algorithm = None if name is None else _weight_algorithm(fields, name)
    channel_wise = fields.optional("channel_wise", bool, hint="true for a scale per channel, false for one")
    fields.done()
    return _present(weight_bits=bits, weight_algorithm=algorithm, channel_wise=channel_wise)


def _present(**given: Any) -> dict[str, Any]:
    """The settings that are there."""
    return {name: value for name, value in given.items() if value is not None}


def _weight_algorithm(fields: Fields, name: str) -> str:
    found = {theirs: ours for ours, theirs in WTS_ALGO.items()}
    if name in UNSUPPORTED_WEIGHTS:
        raise fields.error("wts_algo", UNSUPPORTED_WEIGHTS[name], hint="use arq_quantize")
    if name not in found:
        what = f"wts_algo must be one of {', '.join(found)}, got {name!r}"
        raise fields.error("wts_algo", what, hint=did_you_mean(name, found, otherwise="use arq_quantize"))
    return found[name]
