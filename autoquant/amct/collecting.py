"""What a plan wants to be kept of the activations of a live graph: all values, sketches, channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoquant.calibration.channels import ChannelCollector
from autoquant.calibration.plan import Plan
from autoquant.calibration.seen import Collector
from autoquant.calibration.statistics import Statistics, collector
from autoquant.model.layer import Layer
from autoquant.quantization.affine import Array


class Collectors:
    """Collects what the INT8 layers of a plan read. What several of them read is kept once, and taken from the first.

    All values of a tensor are kept where one of its layers has an algorithm that wants them, unless the plan says
    otherwise (`exact` False). Where channels are balanced, each of them is kept by itself.
    """

    def __init__(self, plan: Plan, layers: Mapping[str, Layer]) -> None:
        self._batch_num = plan.batch_num
        self._tensors: dict[str, Collector] = {}
        self._slices: dict[tuple[str, int], ChannelCollector] = {}
        self._taken: dict[str, list[tuple[int, Collector | ChannelCollector]]] = {name: [] for name in plan.int8}
        exact = {
            tensor
            for name in plan.int8.keys() - plan.sketched
            for tensor in layers[name].activations
            if plan.exact is not False
        }
        for name, settings in plan.int8.items():
            layer = layers[name]
            if settings.dmq is not None:
                self._watch_channels(name, (layer.activations[0], layer.data_axis), exact=layer.activations[0] in exact)
                continue
            for index, tensor in enumerate(layer.activations):
                if tensor not in self._tensors:
                    self._tensors[tensor] = collector(name, exact=tensor in exact)
                    self._taken[name].append((index, self._tensors[tensor]))

    def add(self, name: str, activations: Sequence[Array]) -> None:
        """Take in what a layer read in one pass. Raises TrialError where it is too large to keep all values."""
        for index, taker in self._taken[name]:
            taker.add(activations[index])

    def statistics(self) -> Statistics:
        """What has been seen. Raises TrialError where there is no memory to put all values in order."""
        tensors = {tensor: taker.seen() for tensor, taker in self._tensors.items()}
        slices = {place: taker.seen() for place, taker in self._slices.items()}
        return Statistics("live", {self._batch_num: tensors}, {self._batch_num: slices})

    def _watch_channels(self, name: str, place: tuple[str, int], *, exact: bool) -> None:
        if place not in self._slices:
            self._slices[place] = ChannelCollector(name, place[1], exact=exact)
            self._taken[name].append((0, self._slices[place]))
