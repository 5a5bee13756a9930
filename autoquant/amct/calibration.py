"""quantize_model: a live tf.Graph calibrates itself while the user's own sessions run it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from autoquant.amct.arguments import Names, output_names, output_path
from autoquant.amct.configuration import read_for_config
from autoquant.amct.live_graph import CALIBRATED, LayerInputs, LiveModel, Probes, live_activations
from autoquant.amct.logs import log
from autoquant.array import Array
from autoquant.calibration.plan import Plan, check_plan
from autoquant.calibration.record import Calibrator
from autoquant.errors import UsageError, listed
from autoquant.files import write_text
from autoquant.formats.record_text import save_record
from autoquant.model.layer import Layer
from autoquant.model.shapes import tensor_of

MOST = 2**31 - 1
"""Runs that can be counted."""
EMPTY_ENTRY = re.compile(r'key\s*:\s*("(?:[^"\\]|\\.)*")\s*value\s*:?\s*\{\s*\}')


def quantize_model(
    graph: Any, config_file: str | Path, record_file: str | Path, calib_outputs: Names | None = None
) -> list[Any]:
    """Let a tf.Graph calibrate itself: edits it in place, so that the next runs of its outputs are the calibration.

    Initialize the variables, and run the outputs `batch_num` times in one session that is made after this call, each
    time with other data. The last of these runs writes the record, for `save_model`; later ones change nothing. To
    calibrate anew, initialize the variables again. Names of outputs stay as they are, and they compute what they did.

    Args:
        graph: a tf.Graph into which a frozen .pb was imported, or with variables, of which the sessions that calibrate
            hold the values, and which no session has run yet.
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
    outputs = () if calib_outputs is None or not len(calib_outputs) else output_names(calib_outputs)
    model, plan = read_for_config(graph, Path(config_file), outputs)
    check_plan(plan, model.survey.by_name)
    if graph.finalized:
        raise UsageError("graph", "it is finalized and cannot be changed", hint="import the .pb into a new tf.Graph")
    layers = int8_layers(model, plan)
    activations = {name: live_activations(graph, layer, model.renamed) for name, layer in layers.items()}
    calibration = Calibration(model, plan, output_path(record_file))
    values = [tensor_of(graph, tensor) for tensor in model.variables]
    variables = []
    for name, layer in layers.items():
        place = f"{name.replace(':', '_')}/act_quant"
        variable, number = _counter(graph, place, activations[name])
        tensors, read = [number, *activations[name], *values], partial(calibration.add, name)
        probe = calibration.probes.attach(graph, layer.node, tensors, read, name=f"{place}/calibration")
        graph.add_to_collection(CALIBRATED, probe.name)
        variables.append(variable)
        values = []  # with the first layer's are enough: each pass reaches all layers
    log().info("%d layers wait for the data of batch_num=%d runs: %s", len(layers), plan.batch_num, record_file)
    return variables


def int8_layers(model: LiveModel, plan: Plan) -> dict[str, Layer]:
    """The layers that the plan puts into INT8, in graph order."""
    return {name: layer for name, layer in model.survey.by_name.items() if name in plan.int8}


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
        # A control edge from the operator of a tensor would make it run even where a session is fed that tensor. What
        # has no effect, such as an Identity, TensorFlow would replace by such an edge.
        computed = tf.raw_ops.Assert(condition=True, data=list(tensors), name=f"{place}/computed")
        with tf.control_dependencies([computed]):
            return variable, tf.raw_ops.CountUpTo(ref=variable, limit=MOST, name=f"{place}/count")


class Calibration:
    """Fills up while sessions run; its record file has an empty entry for each layer until all have read all passes.

    `probes.error` is what ended it, if anything did. The counters of passes set to zero start it anew; a finished
    record stays until the next one is finished.
    """

    def __init__(self, model: LiveModel, plan: Plan, record_file: Path) -> None:
        self.probes = Probes()
        self._model = model
        self._layers = int8_layers(model, plan)
        self._values: dict[str, Array] = {}
        self._plan = plan
        self._path = record_file
        self._finished = False
        self._begin()
        write_text(record_file, empty_record(key for layer in self._layers.values() for key in layer.records))
        _CALIBRATIONS[record_file.resolve()] = self

    def add(self, name: str, number: Array, *arrays: Array) -> None:
        """Take in what a layer reads in one pass, of which no two have the same `number`.

        `arrays` are its activations, and, with one of the layers, the values of the model's variables.
        Raises TrialError where that holds NaN or infinity, or is too large for memory; of the last layer in the last
        pass, also where the values of any layer have no scale.
        """
        if int(number) in self._inputs.passes[name]:
            if self._finished and not self._inputs.waiting:
                what = "the next batch_num=%d passes calibrate anew; until then %s stays"
                log().warning(f"variables were initialized again: {what}", self._plan.batch_num, self._path)
            self._begin()
        if self.probes.error is not None or not self._inputs.waiting:
            return
        activations = len(self._layers[name].activations)
        if len(arrays) > activations:
            values = zip(self._model.variables, arrays[activations:], strict=True)
            self._values = {tensor: value.copy() for tensor, value in values}
        self._inputs.add(name, *arrays[:activations], number=int(number))
        if self._inputs.waiting:
            return
        log().info("all data is there: computing the scales of %d layers", len(self._layers))
        model = self._model.with_values(self._values)
        layers, statistics = int8_layers(model, self._plan), self._inputs.statistics()
        save_record(Calibrator(model.graph, layers, statistics).record(self._plan), self._path)
        self._finished = True
        log().info("the calibration is finished: %s", self._path)

    def progress(self) -> str:
        """Which layers have not read all passes, and how many they have.

        For example: conv, dense: 1 of 2 passes.
        """
        names: dict[int, list[str]] = {}
        for name, passes in self._inputs.waiting.items():
            names.setdefault(passes, []).append(name)
        return "; ".join(f"{listed(some)}: {passes} of {self._plan.batch_num} passes" for passes, some in names.items())

    def _begin(self) -> None:
        self.probes.error = None
        self._inputs = LayerInputs(self._plan, self._layers, refuse_nan=True)


_CALIBRATIONS: WeakValueDictionary[Path, Calibration] = WeakValueDictionary()
"""By record file, as long as the graph is there that they belong to."""


def calibration_of(record_file: Path) -> Calibration | None:
    """The calibration of this process that writes a record file; None where its graph is gone, or never was."""
    return _CALIBRATIONS.get(record_file.resolve())


def empty_record(names: Iterable[str]) -> str:
    """The text of a record before its calibration is finished: an entry for every name, with nothing in it.

    >>> print(empty_record(["conv"]), end="")
    record {
      key: "conv"
      value {
      }
    }
    """
    return "".join(f"record {{\n  key: {json.dumps(name)}\n  value {{\n  }}\n}}\n" for name in names)


def empty_entries(text: str) -> tuple[str, ...]:
    """The names of empty entries in a record's text.

    >>> empty_entries(empty_record(["conv", "dense"]))
    ('conv', 'dense')
    """
    return tuple(json.loads(key) for key in EMPTY_ENTRY.findall(text))
