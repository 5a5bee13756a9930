"""create_quant_config: what is to be done with a live tf.Graph; and reading that again for a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from autoquant.amct.arguments import Names, output_path
from autoquant.amct.live_graph import LiveModel, check_live, read_live
from autoquant.amct.logs import log
from autoquant.calibration.plan import Plan
from autoquant.errors import PlanError, listed
from autoquant.formats.calibration_cfg import CalibrationCfg, load_cfg, plan_of
from autoquant.formats.config_json import load_config, save_config
from autoquant.model.operators import prefix_of
from autoquant.tuning.study.trial import count_layers


def create_quant_config(
    config_file: str | Path,
    graph: Any,
    skip_layers: Names | None = None,
    batch_num: SupportsIndex = 1,
    activation_offset: bool | np.bool_ = True,
    config_defination: str | Path | None = None,
) -> None:
    """Write config.json for a graph, to be edited or given to `quantize_model` as it is.

    Args:
        config_file: the file to write; one that is there is overwritten.
        graph: a tf.Graph into which a frozen .pb was imported.
        skip_layers: names of layers that stay in float.
        batch_num: how many runs of the graph calibrate it.
        activation_offset: whether activations have an offset (asymmetric) or not.
        config_defination: a simplified configuration, `.cfg`, which overrides the three before it.

    Raises:
        PlanError: a layer that the graph does not have, a setting that it cannot have, or none is left to quantize.
        ModelError: the graph cannot be quantized; the message says why.
    """
    cfg = (
        _cfg(() if skip_layers is None else skip_layers, batch_num, activation_offset)
        if config_defination is None
        else load_cfg(Path(config_defination))
    )
    survey = read_live(graph, fusion=cfg.fusion).survey
    plan = plan_of(cfg, survey)
    save_config(plan, output_path(config_file), layers=survey.by_name)
    if survey.rejected:
        names = listed([rejected.name for rejected in survey.rejected])
        log().info("cannot be quantized, `autoquant inspect` says why: %s", names)
    log().info("%d of %d layers are to be quantized: %s", count_layers(plan.int8), len(survey.layers), config_file)


def read_for_config(graph: Any, config: Path, outputs: Sequence[str]) -> tuple[LiveModel, Plan]:
    """A tf.Graph as a config wants it fused, and the plan of the config for its layers.

    The config may be that of a graph into which this one was imported under a prefix. Raises as `read_live`, and
    PlanError for what is no config of this graph, or wants of it what cannot be done.
    """
    wanted = load_config(config)
    check_live(graph)
    prefix = prefix_of(wanted.layers, {operation.name for operation in graph.get_operations()})
    model = read_live(graph, fusion=without_prefix(wanted, prefix).fusion, outputs=outputs)
    layers = {f"{prefix}{name}": layer for name, layer in model.survey.by_name.items()}
    rejected = [replace(one, name=f"{prefix}{one.name}") for one in model.survey.rejected]
    plan = without_prefix(load_config(config, layers=layers, rejected=rejected), prefix)
    if plan.equalize:
        what = "equalize gives the model other weights, which the graph that is calibrated cannot have"
        hint = "set it to false; `autoquant quantize MODEL --config CONFIG --calibration DATA` can equalize"
        raise PlanError(f"{config}: autoquant.equalize", what, hint=hint)
    if plan.weight_rounding != "nearest":
        what = f"weights rounded by {plan.weight_rounding} are not supported for graphs that calibrate themselves"
        raise PlanError("autoquant.weight_rounding", what, hint="remove it, or give the config to `autoquant quantize`")
    if plan.bias_correction != "none":  # which takes data beyond what a graph calibrates itself with
        what = f"biases corrected ({plan.bias_correction}) are not supported for graphs that calibrate themselves"
        raise PlanError("autoquant.bias_correction", what, hint="remove it, or give the config to `autoquant quantize`")
    if plan.training:
        what = "graphs that calibrate themselves cannot be trained, which takes data beyond that"
        raise PlanError("autoquant.training", what, hint="remove it, or give the config to `autoquant quantize`")
    return model, plan


def without_prefix(plan: Plan, prefix: str) -> Plan:
    """A plan for the graph that another one has under a prefix."""
    skip = frozenset(name.removeprefix(prefix) for name in plan.fusion.skip)
    layers = {name.removeprefix(prefix): settings for name, settings in plan.layers.items()}
    return replace(plan, layers=layers, fusion=replace(plan.fusion, skip=skip))


def _cfg(skip_layers: Names, batch_num: SupportsIndex, activation_offset: bool | np.bool_) -> CalibrationCfg:
    where = "create_quant_config"
    if isinstance(skip_layers, str):
        raise PlanError(where, f"skip_layers is a text, '{skip_layers}'", hint="give a list of names of layers")
    if not isinstance(batch_num, int | np.integer) or isinstance(batch_num, bool):
        raise PlanError(where, f"batch_num must be an int, got {batch_num!r}", hint="for example 1")
    if not isinstance(activation_offset, bool | np.bool_):
        raise PlanError(where, f"activation_offset must be a bool, got {activation_offset!r}", hint="True or False")
    try:
        return CalibrationCfg(where, int(batch_num), bool(activation_offset), tuple(skip_layers))
    except ValueError as error:
        raise PlanError(where, str(error), hint="for example 1") from None
