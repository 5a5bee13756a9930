"""Settings of one layer in AMCT's files: the names of range algorithms, and settings joined with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import LayerPlan, Plan, check_plan, layer_plan
from autoquant.calibration.ranges import Ifmr, RangeAlgorithm, range_name
from autoquant.errors import PlanError, did_you_mean
from autoquant.model.layer import Layer

AMCT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"ifmr": ("max_percentile", "min_percentile", "search_range", "search_step"), "hfmg": ("num_of_bins",)}
)
"""Algorithm -> its parameters in config.json. The others of RANGES are our own."""
FP16 = "FORCE_FP16_QUANT"
"""The fakequant_precision_mode that rounds scales of activations to float16."""
Given = Mapping[str, Any]
"""Settings in a file, by their names in LayerPlan."""


def parameters(setting: RangeAlgorithm) -> dict[str, Any]:
    """An algorithm and its parameters as config.json has them: the two ends of IFMR's search are one list."""
    values = asdict(setting)
    if isinstance(setting, Ifmr):
        values["search_range"] = [values.pop("search_start"), values.pop("search_end")]
    return {"act_algo": range_name(setting), **values}


def with_defaults(layer: Layer, given: Given, *, otherwise: Given, where: str) -> LayerPlan:
    """The settings that are given, and where one is not, that of `otherwise` as far as the layer can have it.

    Raises PlanError at `where`, which names the layer, when it cannot have what is given.
    """
    settings = replace(layer_plan(layer, LayerPlan(**otherwise)), **given)
    try:
        check_plan(Plan({layer.name: settings}), {layer.name: layer})
    except PlanError as error:
        raise PlanError(where, error.what, hint=error.hint) from None
    return settings


def unknown_input(where: str, name: str, layers: Mapping[str, Layer]) -> PlanError:
    """The error for an input, `<operator>:<index>`, that is none of those that can be quantized."""
    operator, _, index = name.rpartition(":")
    if operator in layers and not layers[operator].tensor_only:
        what = f"layer {operator} is a {layers[operator].op}: tensor_quantize is for MaxPool, Add and AddV2"
        return PlanError(where, what, hint="as a layer it has settings of its own: remove the entry")
    inputs = {layer.name: layer.node for layer in layers.values() if layer.tensor_only}
    possible = ", ".join(known.rpartition(":")[2] for known, node in inputs.items() if node == operator)
    if possible:
        return PlanError(where, f"input {index} of layer {operator} cannot be quantized", hint=f"it can be {possible}")
    hint = did_you_mean(operator, inputs.values(), otherwise="`autoquant inspect` lists the layers")
    return PlanError(where, f"Layer {operator} does not exist in the graph, as a MaxPool, Add or AddV2", hint=hint)
