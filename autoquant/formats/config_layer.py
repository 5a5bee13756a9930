"""The objects that config.json has for one layer: quant_enable, activation_quant_params, weight_quant_params."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import LayerPlan
from autoquant.calibration.ranges import RANGES, Ifmr, RangeAlgorithm, range_name
from autoquant.errors import did_you_mean
from autoquant.formats.layer_settings import AMCT, Given, parameters
from autoquant.formats.strict import Fields

WEIGHTS: Mapping[str, str] = MappingProxyType({"minmax": "arq_quantize", "mse": "mse", "octav": "octav"})
"""Weight algorithm -> wts_algo. AMCT has the first; the others are our own."""
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "nuq_quantize": "non-uniform quantization (nuq_quantize) is not supported, as hardware gains nothing by it",
        "ada_quantize": "ada_quantize is for PyTorch only",
    }
)


def layer_object(settings: LayerPlan | None, *, weight: bool) -> dict[str, Any]:
    """A layer's object; `weight` says whether it has one."""
    if settings is None:
        return {"quant_enable": False}
    made: dict[str, Any] = {"quant_enable": True, "activation_quant_params": activation_object(settings)}
    if settings.dmq is not None:
        made["dmq_balancer_param"] = settings.dmq
    if weight:
        made["weight_quant_params"] = {
            "channel_wise": settings.channel_wise,
            "num_bits": settings.weight_bits,
            "wts_algo": WEIGHTS[settings.weight_algorithm],
        }
    return made


def activation_object(settings: LayerPlan) -> dict[str, Any]:
    """A layer's activation_quant_params: where the range algorithm is none of AMCT's, those of AMCT's default."""
    chosen = Ifmr() if is_ours(settings.activation) else settings.activation
    return {"asymmetric": settings.asymmetric, "num_bits": 8, **parameters(chosen)}


def is_ours(setting: RangeAlgorithm) -> bool:
    """Whether AMCT does not have the algorithm."""
    return range_name(setting) not in AMCT


def read_layer(fields: Fields) -> tuple[bool, Given]:
    """Whether a layer is to be quantized, and the settings that its object gives. Raises PlanError."""
    enabled = fields.take("quant_enable", True)
    given = read_activation(fields.sub("activation_quant_params")) | _read_weight(fields.sub("weight_quant_params"))
    given |= _present(dmq=fields.optional("dmq_balancer_param", float))
    fields.done()
    fields.build(lambda: LayerPlan(**given))
    return enabled, given


def read_activation(fields: Fields) -> dict[str, Any]:
    """The settings in an activation_quant_params. Raises PlanError."""
    bits = fields.take("num_bits", 8)
    what = f"num_bits of an activation must be 8, got {bits}: INT4 and INT16 are not supported"
    fields.require(bits == 8, "num_bits", what, hint="set it to 8, or leave the layer in float")
    asymmetric = fields.optional("asymmetric", bool, hint="true for an offset, false for none")
    activation = _read_amct(fields)
    fields.done()
    return _present(asymmetric=asymmetric, activation=activation)


def read_ours(fields: Fields) -> RangeAlgorithm:
    """A range algorithm that AMCT does not have, its parameters called as in RANGES. Raises PlanError."""
    name = fields.only("act_algo", sorted(RANGES.keys() - AMCT.keys()), "minmax")
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
    found = {theirs: ours for ours, theirs in WEIGHTS.items()}
    if name in UNSUPPORTED:
        raise fields.error("wts_algo", UNSUPPORTED[name], hint="use arq_quantize")
    if name not in found:
        what = f"wts_algo must be one of {', '.join(found)}, got {name!r}"
        raise fields.error("wts_algo", what, hint=did_you_mean(name, found, otherwise="use arq_quantize"))
    return found[name]
