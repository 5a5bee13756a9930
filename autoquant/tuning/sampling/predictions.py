"""Predicted divergences of tunables, looked up by the codes of a point."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.coding import Codes, Coding, unchanged
from autoquant.tuning.sampling.problem import bits_of
from autoquant.tuning.sampling.shared_costs import SharedCost
from autoquant.tuning.sensitivity.request import Prediction, Predictions
from autoquant.tuning.study.space import Parameters, switch_of

Array = NDArray[np.float64]


class _Divergences:
    """The divergences of one tunable by the codes at `places`; the largest of them for any others."""

    def __init__(self, found: dict[tuple[int | None, ...], float]) -> None:
        self._found, self._otherwise = found, max(found.values(), default=0.0)

    def of(self, key: tuple[int, ...]) -> float:
        """With these codes."""
        return self._found.get(key, self._otherwise)


@dataclass(frozen=True, slots=True)
class _Options:
    """What one tunable can have: divergences by the codes at `places`, with activations of 8 bits and of 16.

    `switch` is the place of its switch and `bits` that of its choice of 8 or 16 bits, with the codes of INT8 and of 8
    bits, where it has them.
    """

    switch: int | None
    on: int | None
    bits: int | None
    eight: int | None
    places: tuple[int, ...]
    narrow: _Divergences
    wide: _Divergences

    @classmethod
    def of(cls, tunable: str, predictions: Sequence[Prediction], coding: Coding) -> _Options:
        """All predictions of a tunable have the same dimensions; of those with the same settings the first counts."""
        names = tuple(predictions[0].parameters) if predictions else ()
        narrow: dict[tuple[int | None, ...], float] = {}
        wide: dict[tuple[int | None, ...], float] = {}
        for one in predictions:
            codes = tuple(coding.code(name, one.parameters[name]) for name in names)
            narrow.setdefault(codes, number_of(one.divergence))
            wide.setdefault(codes, min(number_of(one.divergence if one.wide is None else one.wide), narrow[codes]))
        switch, bits = switch_of(tunable), bits_of(tunable)
        on = coding.code(switch, True) if switch in coding.place else None
        eight = coding.code(bits, 8) if bits in coding.switches else None
        places = tuple(coding.place[name] for name in names)
        chosen = coding.place[bits] if bits in coding.switches else None
        return cls(coding.place.get(switch), on, chosen, eight, places, _Divergences(narrow), _Divergences(wide))

    def is_int8(self, codes: Sequence[int]) -> bool:
        """Whether it is in INT8, with activations of 8 bits."""
        return self._is_on(codes) and (self.bits is None or codes[self.bits] == self.eight)

    def divergence(self, codes: Sequence[int]) -> float:
        """The divergence with these codes of all dimensions, 0 in float; with 16 bits where it has that choice."""
        return self.of_layer(codes) if self._is_on(codes) else 0.0

    def of_layer(self, codes: Sequence[int]) -> float:
        """The same in INT8."""
        return (self.narrow if self.bits is None else self.wide).of(self.key(codes))

    def of_input(self, codes: Sequence[int]) -> float:
        """What 8 bits of what it reads cost on top of 16."""
        narrow = self.narrow.of(self.key(codes))
        return narrow if math.isinf(narrow) else narrow - self.wide.of(self.key(codes))

    def _is_on(self, codes: Sequence[int]) -> bool:
        return self.switch is None or codes[self.switch] == self.on

    def key(self, codes: Sequence[int]) -> tuple[int, ...]:
        """The codes that decide."""
        return tuple(codes[place] for place in self.places)


class PredictionTable:
    """The `predictions` under the same settings of the whole model.

    Divergences have parts: one for each of the `tunables`, and one for the input of each that has a choice of 16 bits,
    which `inputs`, shape (parts,), is true of; `switches` has for each switch the place of its part, -1 where it has
    none. `makers` gives for layers with that choice those that make what they read, which is of 8 bits where any of
    them is INT8.
    """

    def __init__(
        self, predictions: Predictions, coding: Coding, makers: Mapping[str, Collection[str]] = MappingProxyType({})
    ) -> None:
        self.predictions, self.tunables = predictions, tuple(predictions)
        place = {tunable: number for number, tunable in enumerate(self.tunables)}
        self._coding = coding
        self._options = [_Options.of(tunable, each, coding) for tunable, each in predictions.items()]
        readers = [layer for layer in self.tunables if self._options[place[layer]].bits is not None]
        self._makers = {
            place[layer]: [place[one] for one in makers.get(layer, ()) if one in place] for layer in readers
        }
        parts = place | {bits_of(layer): number for number, layer in enumerate(readers, start=len(place))}
        self.inputs = np.arange(len(parts)) >= len(place)
        self.switches = np.array([parts.get(name, -1) for name in coding.switches], dtype=np.intp)
        self._sharing = list(self._sharing_of(self._makers))
        self._always = np.isin(np.arange(len(parts)), self.switches, invert=True)
        self._always[self.inputs] = [min(switches) < 0 for switches in self._sharing]
        self._points: Sequence[Parameters] = ()
        self._rows = np.zeros((0, len(parts)))

    def _sharing_of(self, makers: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, ...]]:
        """For each input the switches any of which makes it 8 bits, by their places; -1 for what always does."""
        place = {name: number for number, name in enumerate(self._coding.switches)}
        for reader, others in makers.items():
            names = [self.tunables[one] for one in (reader, *others)]
            yield tuple(dict.fromkeys(place.get(bits_of(name), place.get(name, -1)) for name in names))

    def switch_costs(self, codes: Codes, factors: Array) -> Array:
        """Of each switch what it is predicted to add to the divergence of a point, times the factor of its part.

        Of activations, what 8 bits of what the layer reads cost.
        """
        listed = codes.tolist()
        costs = [options.of_layer(listed) for options in self._options]
        costs += [self._options[reader].of_input(listed) for reader in self._makers]
        return np.asarray(np.append(np.array(costs) * factors, 0.0)[self.switches])

    def shared_costs(self, codes: Codes, factors: Array) -> list[SharedCost]:
        """What 8 bits of a layer's input cost, for all switches any of which makes it so."""
        listed, found = codes.tolist(), []
        for reader, switches, factor in zip(self._makers, self._sharing, factors[self.inputs].tolist(), strict=True):
            if min(switches) >= 0:  # else it is always so
                found.append(SharedCost(self._options[reader].of_input(listed) * factor, switches))
        return found

    def total(self, codes: Codes) -> float:
        """The sum of the predicted divergences of all tunables in INT8."""
        return math.fsum(self._divergences(codes))

    def row(self, codes: Codes) -> Array:
        """Of a point what was predicted at first, shape (parts,).

        Nothing where that is no number for what is in INT8 in every plan.
        """
        found = np.array(self._divergences(codes), dtype=np.float64)
        found[self._always & ~np.isfinite(found)] = 0.0
        return found

    def rows(self, points: Sequence[Parameters], codes: Codes) -> Array:
        """The same of many points, looked up once of each, shape (points, parts)."""
        known = unchanged(self._points, points)
        new = [self.row(one)[None] for one in codes[known:]]
        self._points, self._rows = points, np.concatenate([self._rows[:known], *new])
        return self._rows

    def _divergences(self, codes: Codes) -> list[float]:
        listed = codes.tolist()
        found = [options.divergence(listed) for options in self._options]
        narrow = [options.is_int8(listed) for options in self._options] if self._makers else []
        for reader, makers in self._makers.items():
            rounded = narrow[reader] or any(narrow[maker] for maker in makers)
            found.append(self._options[reader].of_input(listed) if rounded else 0.0)
        return found


def number_of(divergence: float) -> float:
    """A divergence that can be compared."""
    return math.inf if math.isnan(divergence) else max(divergence, 0.0)
