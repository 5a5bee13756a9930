"""What the INT8 layers of a plan read while sessions run a live graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from autoquant.amct.arguments import listed
from autoquant.amct.evaluator import Judge
from autoquant.amct.live_graph import LiveModel, Probes, live_activations
from autoquant.array import Array
from autoquant.calibration.channels import ChannelCollector
from autoquant.calibration.distribution import Collector
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.statistics import Statistics, collector
from autoquant.errors import DataError, TrialError
from autoquant.model.layer import Layer
from autoquant.model.shapes import imported


class LayerInputs:
    """Collects what the INT8 layers of a plan read, of each in its first `batch_num` passes.

    What several of them read is collected once, from the first of them. All values of a tensor are kept where one of
    its layers has an algorithm that wants them, unless the plan says otherwise (`exact` False). Where channels are
    balanced, each of them is collected by itself.
    """

    def __init__(self, plan: Plan, layers: Mapping[str, Layer], *, refuse_nan: bool = False) -> None:
        """`refuse_nan` raises for NaN and infinity at once, not only when scales are computed."""
        self.passes: dict[str, set[int]] = {name: set() for name in layers if name in plan.int8}
        self._batch_num = plan.batch_num
        self._refuse_nan = refuse_nan
        self._exact = {
            tensor
            for name in plan.int8.keys() - plan.sketched
            for tensor in layers[name].activations
            if plan.exact is not False
        }
        self._tensors: dict[str, Collector] = {}
        self._channels: dict[tuple[str, int], ChannelCollector] = {}
        self._collectors = {name: list(self._new(layers[name], settings)) for name, settings in plan.int8.items()}

    def add(self, name: str, *activations: Array, number: int | None = None) -> None:
        """Take in what a layer reads in one pass, which has this number, or else the next one.

        Raises TrialError where it is too large to keep all values.
        """
        passes = self.passes[name]
        if len(passes) == self._batch_num:
            return
        passes.add(len(passes) if number is None else number)
        if self._refuse_nan:
            _check_finite(name, len(passes), activations)
        for index, taker in self._collectors[name]:
            taker.add(activations[index])

    @property
    def waiting(self) -> Mapping[str, int]:
        """The layers that have not read all passes, and how many they have."""
        return {name: len(passes) for name, passes in self.passes.items() if len(passes) < self._batch_num}

    def statistics(self) -> Statistics:
        """What has been collected, which it lets go of. Raises TrialError where there is no memory to sort values."""
        tensors = {tensor: one.distribution() for tensor, one in self._tensors.items()}
        channels = {place: one.channels() for place, one in self._channels.items()}
        for collectors in (self._tensors, self._channels, self._collectors):
            collectors.clear()
        return Statistics("live", {self._batch_num: tensors}, {self._batch_num: channels})

    def _new(self, layer: Layer, settings: LayerPlan) -> Iterator[tuple[int, Collector | ChannelCollector]]:
        """Collectors for those inputs of a layer that have none yet, each with the number of the input."""
        if settings.dmq is not None:
            place = layer.activations[0], layer.data_axis
            if place not in self._channels:
                exact = place[0] in self._exact
                self._channels[place] = ChannelCollector(layer.name, layer.data_axis, exact=exact)
                yield 0, self._channels[place]
            return
        for index, tensor in enumerate(layer.activations):
            if tensor not in self._tensors:
                self._tensors[tensor] = collector(layer.name, exact=tensor in self._exact)
                yield index, self._tensors[tensor]


def observe(model: LiveModel, plan: Plan, judge: Judge) -> Statistics:
    """Let the evaluator calibrate the model, and collect what all INT8 layers of the plan read.

    Raises DataError where it runs fewer than `batch_num` batches, TrialError where values are too many for memory, and
    whatever the evaluator raises. What is wrong with the values of a layer is found when its scales are computed.
    """
    graph, probes, inputs = imported(model.graph), Probes(), LayerInputs(plan, model.survey.by_name)
    for name in plan.int8:
        layer = model.survey.by_name[name]
        read, place = partial(inputs.add, name), f"{name.replace(':', '_')}/observed"
        probes.attach(graph, layer.node, live_activations(graph, layer), read, name=place)
    judge.calibrate(graph, probes)
    if inputs.waiting:
        names, fewest = listed([*inputs.waiting]), min(inputs.waiting.values())
        what = f"ran {names} in {fewest} of {plan.batch_num} batches: the calibration is not finished"
        hint = "run the outputs at least batch_num times, or lower batch_num in the config"
        raise DataError("evaluator.calibration()", what, hint=hint)
    return inputs.statistics()


def _check_finite(name: str, number: int, activations: Sequence[Array]) -> None:
    wrong = sum(values.size - int(np.count_nonzero(np.isfinite(values))) for values in activations)
    if wrong:
        what = f"its input holds {wrong} NaN or infinite values in pass {number}"
        raise TrialError(name, what, hint="leave the layer in float (quant_enable false), or repair the data or model")
