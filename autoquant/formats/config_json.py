"""config.json: a plan as AMCT writes it. What AMCT has no word for stands under the one extra key `autoquant`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import PER_TENSOR_ONLY, LayerPlan, Plan
from autoquant.calibration.ranges import RANGES, Ifmr, RangeAlgorithm, range_name
from autoquant.errors import PlanError
from autoquant.files import write_text
from autoquant.formats.strict import Fields

EXTRA = "autoquant"
ONLY: Mapping[str, Any] = MappingProxyType(
    {
        "do_fusion": True,
        "fakequant_precision_mode": "DEFAULT",
        "joint_quant": False,
        "skip_fusion_layers": [],
        "tensor_quantize": [],
        "version": 1,
        "weight_offset": False,
    }
)
"""Global keys of AMCT of which this version knows one value: the one that a missing key means."""
GLOBAL = frozenset({"activation_offset", "batch_num", EXTRA, *ONLY})
NO_OPS: Mapping[str, str] = MappingProxyType({})


def config_text(plan: Plan) -> str:
    """The text of a plan, keys sorted.

    Raises PlanError when a layer is called like a global key.
    """
    config: dict[str, Any] = {
        "activation_offset": True,
        "batch_num": plan.batch_num,
        "do_fusion": True,
        "skip_fusion_layers": [],
        "version": 1,
    }
    ranges: dict[str, dict[str, Any]] = {}
    for name, settings in plan.layers.items():
        if name in GLOBAL:
            raise PlanError(name, "a layer is called like a global key of config.json", hint="rename the layer")
        config[name] = {"quant_enable": False} if settings is None else _layer_object(settings)
        if settings is not None and not isinstance(settings.activation, Ifmr):
            ranges[name] = {"act_algo": range_name(settings.activation), **asdict(settings.activation)}
    if ranges:
        config[EXTRA] = {"activation_quant_params": ranges}
    return json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"


def save_config(plan: Plan, path: Path) -> None:
    """Write config.json, whole or not at all."""
    write_text(path, config_text(plan))


def load_config(path: Path, *, ops: Mapping[str, str] = NO_OPS) -> Plan:
    """Read a config.json; `ops` gives operators by layer name, for defaults. Raises PlanError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(str(path), f"cannot be read ({error})", hint="give the config.json of a run") from None
    return parse_config(text, str(path), ops=ops)


def parse_config(text: str, where: str, *, ops: Mapping[str, str] = NO_OPS) -> Plan:
    """Read the text of a config.json. Layers that it does not name are float. Raises PlanError."""
    fields = Fields(_json(text, where), f"{where}:$", PlanError)
    for key, value in ONLY.items():
        fields.only(key, [value], value)
    batch_num = fields.take("batch_num", 1)
    offset = fields.take("activation_offset", True)
    extra = fields.sub(EXTRA)
    algorithms = extra.sub("activation_quant_params")
    extra.done()
    ranges = {name: _range(algorithms.nested(value, name)) for name, value in algorithms.rest().items()}
    layers = {
        name: _layer(fields.nested(value, name), offset, ops.get(name), ranges.pop(name, None))
        for name, value in fields.rest().items()
    }
    for name in ranges:
        raise algorithms.error(name, "no such layer in this file", hint="remove the entry")
    return fields.build(lambda: Plan(layers, batch_num))


def _layer_object(settings: LayerPlan) -> dict[str, Any]:
    chosen = settings.activation if isinstance(settings.activation, Ifmr) else Ifmr()
    return {
        "quant_enable": True,
        "activation_quant_params": {
            "act_algo": "ifmr",
            "asymmetric": settings.asymmetric,
            "max_percentile": chosen.max_percentile,
            "min_percentile": chosen.min_percentile,
            "num_bits": 8,
            "search_range": [chosen.search_start, chosen.search_end],
            "search_step": chosen.search_step,
        },
        "weight_quant_params": {"channel_wise": settings.channel_wise, "num_bits": 8, "wts_algo": "arq_quantize"},
    }


def _layer(fields: Fields, offset: bool, op: str | None, extra: RangeAlgorithm | None) -> LayerPlan | None:
    enabled = fields.take("quant_enable", True)
    activation = fields.sub("activation_quant_params")
    activation.only("num_bits", [8], 8)
    activation.only("act_algo", ["ifmr"], "ifmr")
    asymmetric = activation.take("asymmetric", offset)
    ifmr = _ifmr(activation)
    activation.done()
    weight = fields.sub("weight_quant_params")
    weight.only("num_bits", [8], 8)
    weight.only("wts_algo", ["arq_quantize"], "arq_quantize")
    channel_wise = weight.take("channel_wise", op not in PER_TENSOR_ONLY)
    weight.done()
    fields.done()
    return LayerPlan(extra or ifmr, asymmetric, channel_wise) if enabled else None


def _ifmr(fields: Fields) -> Ifmr:
    default = Ifmr()
    most, least = (fields.take(f"{end}_percentile", 0.999999) for end in ("max", "min"))
    bounds = fields.take("search_range", [default.search_start, default.search_end])
    step = fields.take("search_step", default.search_step)
    if len(bounds) != 2 or not all(type(bound) in (int, float) for bound in bounds):
        raise fields.error("search_range", f"expected two numbers, got {bounds!r}", hint="for example [0.7, 1.3]")
    return fields.build(lambda: Ifmr(most, least, float(bounds[0]), float(bounds[1]), step))


def _range(fields: Fields) -> RangeAlgorithm:
    kind = RANGES[fields.only("act_algo", sorted(RANGES), "minmax")]
    values = {name: fields.take(name, default) for name, default in asdict(kind()).items()}
    fields.done()
    return fields.build(lambda: kind(**values))


def _json(text: str, where: str) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        if repeated:
            raise PlanError(f"{where}:{repeated[0]}", "the key is there twice", hint="remove one of the two")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)  # NaN is in no range: what takes the value refuses it
    except json.JSONDecodeError as error:
        raise PlanError(f"{where}:{error.lineno}:{error.colno}", error.msg, hint="correct the JSON") from None
    except (ValueError, RecursionError) as error:  # what Python refuses: endless numbers, depth
        raise PlanError(where, f"is no config.json: {error}", hint="give the config.json of a run") from None
