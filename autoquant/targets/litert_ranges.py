"""Scale and offset of each tensor that INT8 operators of a .tflite read or make, by the settings of layers near it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import RangeAlgorithm
from autoquant.calibration.record import affine_of, chosen_range
from autoquant.calibration.seen import Seen
from autoquant.calibration.statistics import Statistics
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Affine, Range
from autoquant.targets.litert_operators import data_near, data_of, keeping_scale

Instead = Mapping[str, tuple[Seen, tuple[float, ...]]]
"""Tensor -> what would have been seen of it, balanced by these factors."""


class Ranges:
    """Chooses ranges from statistics; what two plans have in common is computed once."""

    def __init__(self, lite: LiteGraph, statistics: Statistics) -> None:
        self._lite = lite
        self._statistics = statistics
        self._kept: dict[tuple[str, int, RangeAlgorithm, bool, tuple[float, ...]], Range] = {}

    def affines(self, plan: Plan, int8: Collection[int], io: str, balanced: Instead) -> Mapping[str, Affine]:
        """Scale and offset of each tensor that is to be INT8, by name.

        Tensors that must have the same scale have the same; `balanced` tensors are seen as it says. Raises PlanError
        where the statistics lack a tensor, TrialError where one has no scale.
        """
        finder = LayerFinder(self._lite, plan, int8)
        found: dict[int, Affine] = {}
        for tensor in data_near(self._lite, int8, io):
            source = finder.source(tensor)
            if source not in found:
                layer = finder.layer(source)
                found[source] = self._affine(self._name(source), plan.int8[layer], plan.batch_num, balanced)
            found[tensor] = found[source]
        return {self._name(tensor): affine for tensor, affine in found.items()}

    def _affine(self, tensor: str, settings: LayerPlan, batch_num: int, balanced: Instead) -> Affine:
        seen, factors = balanced.get(tensor, (None, ()))
        key = (tensor, batch_num, settings.activation, settings.asymmetric, factors)
        if key not in self._kept:
            seen = self._statistics.seen(tensor, batch_num) if seen is None else seen
            self._kept[key] = chosen_range(tensor, seen, settings)
        return affine_of(tensor, self._kept[key], settings)

    def _name(self, tensor: int) -> str:
        return flatbuffer.tensor_name(self._lite.subgraph.tensors[tensor])


class LayerFinder:
    """Finds the layer whose settings hold for a tensor."""

    def __init__(self, lite: LiteGraph, plan: Plan, int8: Collection[int]) -> None:
        self._lite = lite
        self._keeping = keeping_scale(lite) & frozenset(int8)
        self._layers = {lite.layers[name]: name for name in plan.int8}

    def source(self, tensor: int) -> int:
        """The tensor that has the scale of this one because INT8 operators between them keep it; often itself."""
        while (maker := self._lite.makers.get(tensor)) in self._keeping:
            (tensor,) = data_of(self._lite, self._lite.subgraph.operators[maker].inputs)
        return tensor

    def layer(self, tensor: int) -> str:
        """The first INT8 layer that reads a tensor, directly or through INT8 operators that keep its scale.

        Else the last one before it, whatever is between; else the first one behind it; else the first one of all.
        """
        made = [self._lite.makers[tensor]] if tensor in self._lite.makers else []
        return (
            self._first(self._readers(tensor), self._behind, through=self._keeping)
            or self._first(made, self._before, sign=-1)
            or self._first(self._readers(tensor), self._behind)
            or self._layers[min(self._layers)]
        )

    def _first(
        self,
        start: Iterable[int],
        following: Callable[[int], Iterable[int]],
        *,
        sign: int = 1,
        through: Collection[int] | None = None,
    ) -> str | None:
        """The INT8 layer that comes first (last where `sign` is -1) among operators and those that follow them.

        Those behind an operator have a higher index. `through` are the operators that are passed; None is all.
        """
        found = set(start)
        waiting = [sign * operator for operator in found]
        heapify(waiting)
        while waiting:
            operator = sign * heappop(waiting)
            if operator in self._layers:
                return self._layers[operator]
            if through is None or operator in through:
                new = set(following(operator)) - found
                found |= new
                for one in new:
                    heappush(waiting, sign * one)
        return None

    def _readers(self, tensor: int) -> tuple[int, ...]:
        return self._lite.readers.get(tensor, ())

    def _behind(self, operator: int) -> list[int]:
        results = self._lite.subgraph.operators[operator].outputs
        return [reader for result in results for reader in self._readers(int(result))]

    def _before(self, operator: int) -> list[int]:
        data = data_of(self._lite, self._lite.subgraph.operators[operator].inputs)
        return [self._lite.makers[tensor] for tensor in data if tensor in self._lite.makers]
