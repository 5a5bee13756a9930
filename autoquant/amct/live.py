"""quantize_model: a live tf.Graph calibrates itself while the user's own sessions run it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autoquant.amct.calibration import Calibration
from autoquant.amct.configuration import check_constants_stay
from autoquant.amct.logs import log
from autoquant.amct.opened import CALIBRATED, LiveModel, check_no_correction, live_activations, read_live
from autoquant.amct.paths import output_path
from autoquant.amct.probes import attach
from autoquant.amct.saving import output_names
from autoquant.calibration.plan import Plan, check_plan
from autoquant.errors import UsageError
from autoquant.formats.config_json import load_config

MOST = 2**31 - 1
"""Runs that can be counted."""


def quantize_model(
    graph: Any, config_file: str | Path, record_file: str | Path, calib_outputs: Sequence[str] | None = None
) -> list[Any]:
    """Let a tf.Graph calibrate itself: edits it in place, so that the next runs of its outputs are the calibration.

    Initialize the variables, and run the outputs `batch_num` times in one session that is made after this call, each
    time with other data. The last of these runs writes the record, for `save_model`; later ones change nothing. To
    calibrate anew, initialize the variables again. Names of outputs stay as they are, and they compute what they did.

    Args:
        graph: a tf.Graph into which a frozen .pb was imported, and which no session has run yet.
        config_file: the config.json of `create_quant_config`.
        record_file: where the record goes; until the calibration is finished it has an empty entry for each layer.
        calib_outputs: names of outputs that are inside the graph, where others than its ends are used; not changed.

    Returns:
        The added variables, one for each INT8 layer, which no checkpoint of the model has.

    Raises:
        PlanError: the config is not one, or not of this graph, or it equalizes.
        ModelError: the graph cannot be quantized; the message says why.
        UsageError: the graph is being calibrated already, or cannot be changed.

    A run raises an error of TensorFlow with the message of the TrialError that `save_model` raises: NaN or infinity,
    nothing but empty tensors, values without a scale, more values than memory holds.
    """
    config = Path(config_file)
    outputs = output_names(calib_outputs) if calib_outputs else ()
    model = read_live(graph, fusion=load_config(config).fusion, outputs=outputs)
    plan = load_config(config, layers=model.survey.by_name, rejected=model.survey.rejected)
    check_constants_stay(plan, config)
    return insert_calibration(graph, model, plan, record_file)


def insert_calibration(graph: Any, model: LiveModel, plan: Plan, record_file: str | Path) -> list[Any]:
    """Put a probe before each INT8 layer of the plan; `model` is what was read of the graph. Gives the variables."""
    check_plan(plan, model.survey.by_name)
    check_no_correction(plan)
    if graph.finalized:
        raise UsageError("graph", "it is finalized and cannot be changed", hint="import the .pb into a new tf.Graph")
    layers = {name: layer for name, layer in model.survey.by_name.items() if name in plan.int8}
    activations = {name: live_activations(graph, layer) for name, layer in layers.items()}
    calibration = Calibration(model.graph, layers, plan, output_path(record_file))
    variables = []
    for name, layer in layers.items():
        place = f"{name.replace(':', '_')}/act_quant"
        variable, number = _counter(graph, place, activations[name])
        see = partial(calibration.see, name)
        probe = attach(graph, layer.node, [number, *activations[name]], see, name=f"{place}/calibration")
        graph.add_to_collection(CALIBRATED, probe.name)
        variables.append(variable)
    log().info("%d layers wait for the data of batch_num=%d runs: %s", len(layers), plan.batch_num, record_file)
    return variables


def _counter(graph: Any, place: str, tensors: Sequence[Any]) -> tuple[Any, Any]:
    """A variable, and a tensor that adds one to it in each run and gives what it was before: each run gets its own.

    A run that fails before it has computed `tensors` does not count.
    """
    import tensorflow as tf

    with graph.as_default():
        # Of a resource, TensorFlow would not say that it was not initialized.
        variable = tf.compat.v1.Variable(
            0, trainable=False, dtype=tf.int32, name=f"{place}/calibrated_batches", use_resource=False
        )
        with tf.control_dependencies(list(tensors)):
            return variable, tf.raw_ops.CountUpTo(ref=variable, limit=MOST, name=f"{place}/count")
