"""Which layer and which operators a tensor of a .tflite belongs to, under a plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush

from autoquant.calibration.plan import Plan
from autoquant.model.litert.graph import LiteGraph
from autoquant.targets.litert_operators import data_of, scale_keepers


def makers_of(lite: LiteGraph) -> Mapping[str, frozenset[str]]:
    """The layers that make what each layer reads, directly or through operators that are no layers."""
    names = {index: name for name, index in lite.layers.items()}
    before: dict[int, frozenset[str]] = {}  # a tensor -> the layers that make it
    found = {}
    for index, op in enumerate(lite.operators):
        own = frozenset[str]().union(*(before.get(int(tensor), frozenset()) for tensor in op.inputs))
        if index in names:
            found[names[index]], own = own, frozenset({names[index]})
        before |= dict.fromkeys(map(int, op.outputs), own)
    return found


class LayerFinder:
    """Finds the layer whose settings hold for a tensor."""

    def __init__(self, lite: LiteGraph, plan: Plan, int8: Collection[int]) -> None:
        self._lite = lite
        self._int8 = frozenset(int8)
        self._keeping = scale_keepers(lite) & self._int8
        self._layers = {lite.layers[name]: name for name in plan.int8}

    def source(self, tensor: int) -> int:
        """The tensor that has the scale of this one because INT8 operators between them keep it; often itself."""
        while (maker := self._lite.makers.get(tensor)) in self._keeping:
            (tensor,) = data_of(self._lite, self._lite.operators[maker].inputs)
        return tensor

    def maker(self, tensor: int) -> str:
        """The INT8 layer that makes a tensor, or ''."""
        return self._layers.get(self._lite.makers.get(tensor, -1), "")

    def owner(self, tensor: int) -> tuple[str, str]:
        """What an error is to name: the INT8 layer that reads a tensor or makes it, else the tensor; and what it is."""
        reader = self._first(self._readers(tensor), self._behind, through=self._keeping)
        if reader:
            return reader, "its input"
        maker = self.maker(tensor)
        return (maker, "its output") if maker else (self._lite.name_of(tensor), "this tensor, which is to be INT8,")

    def operators_with(self, tensors: Iterable[int]) -> tuple[str, ...]:
        """The INT8 operators besides layers that make or read any of these tensors, by the names of their results."""
        found = {
            index
            for tensor in tensors
            for index in (self._lite.makers.get(tensor, -1), *self._readers(tensor))
            if index in self._int8 and index not in self._layers
        }
        return tuple(self._lite.name_of(int(self._lite.operators[index].outputs[0])) for index in sorted(found))

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
        results = self._lite.operators[operator].outputs
        return [reader for result in results for reader in self._readers(int(result))]

    def _before(self, operator: int) -> list[int]:
        data = data_of(self._lite, self._lite.operators[operator].inputs)
        return [self._lite.makers[tensor] for tensor in data if tensor in self._lite.makers]
