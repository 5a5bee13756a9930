"""config.json: a plan in AMCT's form. Settings that AMCT does not have are under the one extra key `autoquant`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import Ifmr, RangeAlgorithm, range_name
from autoquant.errors import PlanError
from autoquant.files import write_text
from autoquant.formats.codec import json_object_text, json_text
from autoquant.formats.config_reading import EXTRA, FLOAT_OPERATORS, GLOBAL, POWER_OF_TWO, WTS_ALGO, read_plan
from autoquant.formats.layer_settings import AMCT, FP16, parameters
from autoquant.formats.strict import json_object, read_text
from autoquant.model.layer import Layer, Rejected
from autoquant.model.operators import is_tensor

NO_LAYERS: Mapping[str, Layer] = MappingProxyType({})
DIGEST, TEXTS = "_digest", "_texts"


def config_text(plan: Plan, *, layers: Mapping[str, Layer] = NO_LAYERS) -> str:
    """The text of a plan, keys sorted; a layer that `layers` gives without a weight has no weight_quant_params.

    `activation_offset` is on where any layer has an offset; every layer says so for itself anyway. Raises PlanError
    when a layer is called like a global key.
    """
    _check_names(plan.layers)
    config: dict[str, Any] = {
        "activation_offset": not plan.int8 or any(settings.asymmetric for settings in plan.int8.values()),
        "batch_num": plan.batch_num,
        "do_fusion": plan.fusion.enabled,
        "skip_fusion_layers": sorted(plan.fusion.skip),
        "version": 1,
    }
    if plan.fp16_scales:
        config["fakequant_precision_mode"] = FP16
    tensors = [_tensor_object(name, settings) for name, settings in plan.int8.items() if is_tensor(name)]
    if tensors:
        config["tensor_quantize"] = sorted(tensors, key=lambda entry: (entry["layer_name"], entry["input_index"]))
    if extra := _extra(plan):
        config[EXTRA] = extra
    texts = {name: json_text(value) for name, value in config.items()}
    for name, settings in plan.layers.items():
        if not is_tensor(name):
            weight = name not in layers or layers[name].weight is not None
            texts[name] = _layer_text(settings, weight=weight)
    return json_object_text(texts)


def plan_digest(plan: Plan) -> bytes:
    """SHA-256 of the text of a plan: the same for plans that are.

    A plan remembers it: to write the text takes as long as all else that is done about a trial.
    """
    known = vars(plan)
    if DIGEST not in known:
        known[DIGEST] = hashlib.sha256(config_text(plan).encode()).digest()
    return bytes(known[DIGEST])


def save_config(plan: Plan, path: Path, *, layers: Mapping[str, Layer] = NO_LAYERS) -> None:
    """Write config.json, whole or not at all."""
    write_text(path, config_text(plan, layers=layers))


def load_config(path: Path, *, layers: Mapping[str, Layer] = NO_LAYERS, rejected: Sequence[Rejected] = ()) -> Plan:
    """Read a config.json as `parse_config` does. Raises PlanError."""
    return parse_config(
        read_text(path, hint="give the config.json of a run"), str(path), layers=layers, rejected=rejected
    )


def parse_config(
    text: str, where: str, *, layers: Mapping[str, Layer] = NO_LAYERS, rejected: Sequence[Rejected] = ()
) -> Plan:
    """Read the text of a config.json. Layers that it does not name are float.

    `layers` are all that can be quantized, inputs of operators included: names are checked against them, a key that is
    missing has the default that the layer can have, and what it cannot have is refused. Without them any name will do,
    which is enough for a file that a plan was saved to. `rejected` tells why others cannot be quantized. Raises
    PlanError with the key and the way out.
    """
    _check_names(layers)
    fields = json_object(text, where, PlanError, hint="correct the JSON, or give the config.json of a run")
    return read_plan(fields, layers, {one.name: one.reason for one in rejected})


def _layer_text(settings: LayerPlan | None, *, weight: bool) -> str:
    """The text of a layer's object, which settings remember: those of a space are in thousands of plans."""
    if settings is None:
        return json_text(_layer_object(settings, weight=weight))
    known = vars(settings).setdefault(TEXTS, {})
    if weight not in known:
        known[weight] = json_text(_layer_object(settings, weight=weight))
    return str(known[weight])


def _layer_object(settings: LayerPlan | None, *, weight: bool) -> dict[str, Any]:
    """A layer's object; `weight` says whether it has one."""
    if settings is None:
        return {"quant_enable": False}
    made: dict[str, Any] = {"quant_enable": True, "activation_quant_params": _activation_object(settings)}
    if settings.dmq is not None:
        made["dmq_balancer_param"] = settings.dmq
    if weight:
        made["weight_quant_params"] = {
            "channel_wise": settings.channel_wise,
            "num_bits": settings.weight_bits,
            "wts_algo": WTS_ALGO[settings.weight_algorithm],
        }
    return made


def _activation_object(settings: LayerPlan) -> dict[str, Any]:
    """A layer's activation_quant_params: where the range algorithm is none of AMCT's, those of AMCT's default."""
    chosen = Ifmr() if _is_ours(settings.activation) else settings.activation
    return {"asymmetric": settings.asymmetric, "num_bits": settings.activation_bits, **parameters(chosen)}


def _is_ours(setting: RangeAlgorithm) -> bool:
    """Whether AMCT does not have the algorithm."""
    return range_name(setting) not in AMCT


def _tensor_object(name: str, settings: LayerPlan) -> dict[str, Any]:
    operator, _, index = name.rpartition(":")
    return {
        "layer_name": operator,
        "input_index": int(index),
        "activation_quant_params": _activation_object(settings),
    }


def _extra(plan: Plan) -> dict[str, Any]:
    """Settings that AMCT does not have."""
    ours = {name: parameters(s.activation) for name, s in plan.int8.items() if _is_ours(s.activation)}
    repairs: dict[str, Any] = {} if plan.exact is None else {"exact": plan.exact}
    if plan.equalize:
        repairs["equalize"] = True
    if plan.weight_rounding != "nearest":
        repairs["weight_rounding"] = plan.weight_rounding
    if plan.bias_correction != "none":
        repairs["bias_correction"] = plan.bias_correction
    if plan.training:
        repairs["training"] = True
    if shifted := sorted(name for name, settings in plan.int8.items() if settings.power_of_two):
        repairs[POWER_OF_TWO] = shifted
    if plan.float_operators is not None:
        repairs[FLOAT_OPERATORS] = sorted(plan.float_operators)
    return repairs | ({"activation_quant_params": ours} if ours else {})


def _check_names(layers: Mapping[str, Any]) -> None:
    for name in layers:
        if name in GLOBAL:
            raise PlanError(name, "a layer is called like a global key of config.json", hint="rename the layer")
