"""What a file says of one layer, joined with what a layer of its kind can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoquant.calibration.plan import LayerPlan, Plan, check_plan, layer_plan
from autoquant.errors import PlanError, did_you_mean
from autoquant.model.layer import Layer

Given = Mapping[str, Any]
"""Settings by their name in LayerPlan, as many as a file gives."""


def settled(layer: Layer, given: Given, *, otherwise: Given, where: str) -> LayerPlan:
    """`given` as it is, the rest from `otherwise` as far as the layer can have that.

    Raises PlanError at `where`, which names the layer, when it cannot have what is given.
    """
    settings = replace(layer_plan(layer, **otherwise), **given)
    try:
        check_plan(Plan({layer.name: settings}), {layer.name: layer})
    except PlanError as error:
        raise PlanError(where, error.what, hint=error.hint) from None
    return settings


def no_input(where: str, name: str, layers: Mapping[str, Layer]) -> PlanError:
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
