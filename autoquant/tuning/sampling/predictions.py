"""Predicted divergences of tunables, looked up by the codes of a point."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.coding import Codes, Coding, unchanged
from autoquant.tuning.sampling.shared_costs import SharedCost
from autoquant.tuning.sensitivity.request import Prediction, Predictions
from autoquant.tuning.study.space import ACTIVATION_BITS, Parameters, switch_of

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
        switch, bits = switch_of(tunable), f"{tunable}:{ACTIVATION_BITS}"
        on = coding.code(switch, True) if switch in coding.place else None
        eight = coding.code(bits, 8) if bits in coding.switches else None
        places = tuple(coding.place[name] for name in names)
        chosen = coding.place[bits] if bits in coding.switches else None
        return cls(coding.place.get(switch), on, chosen, eight, places, _Divergences(narrow), _Divergences(wide))

    def is_int8(self, codes: Sequence[int]) -> bool:
        """Whether it is in INT8, with activations of 8 bits."""
        return self._is_on(codes) and (self.bits is None or codes[self.bits] == self.eight)

    def divergence(self, codes: Sequence[int]) -> float:
        """The divergence with these codes of all dimensions, 0 in float."""
        if not self._is_on(codes):
            return 0.0
        return (self.narrow if self.is_int8(codes) else self.wide).of(self.key(codes))

    def of_weight(self, codes: Sequence[int]) -> float:
        """The divergence with these settings and activations of 16 bits."""
        return self.wide.of(self.key(codes))

    def of_input(self, codes: Sequence[int]) -> float:
        """What 8 bits of what it reads cost on top of that."""
        narrow = self.narrow.of(self.key(codes))
        return narrow if math.isinf(narrow) else narrow - self.of_weight(codes)

    def _is_on(self, codes: Sequence[int]) -> bool:
        return self.switch is None or codes[self.switch] == self.on

    def key(self, codes: Sequence[int]) -> tuple[int, ...]:
        """The codes that decide."""
        return tuple(codes[place] for place in self.places)


class PredictionTable:
    """The `predictions` under the same settings of the whole model.

    `tunables` are theirs; `switches` has for each switch the place of its tunable, -1 where it has none. `makers` gives
    for layers with a choice of 16 bits those that make what they read, which is of 8 bits where any of them is INT8.
    """

    def __init__(
        self, predictions: Predictions, coding: Coding, makers: Mapping[str, Collection[str]] = MappingProxyType({})
    ) -> None:
        self.predictions, self.tunables = predictions, tuple(predictions)
        place = {tunable: number for number, tunable in enumerate(self.tunables)}
        self._coding = coding
        own = [place.get(switch.layer, -1) for switch in coding.switches.values()]
        self.switches = np.array(own, dtype=np.intp)
        self._options = [_Options.of(tunable, each, coding) for tunable, each in predictions.items()]
        self._always = np.isin(np.arange(len(self.tunables)), self.switches, invert=True)
        self._points: Sequence[Parameters] = ()
        self._rows = np.zeros((0, len(self.tunables)))
        self._makers = {
            place[layer]: [place[one] for one in makers.get(layer, ()) if one in place]
            for layer in place
            if self._options[place[layer]].bits is not None
        }

    def switch_costs(self, codes: Codes, factors: Array) -> Array:
        """Of each switch what it is predicted to add to the divergence of a point, times the factor of its tunable.

        Of activations, what 8 bits of what the layer reads cost.
        """
        listed, found = codes.tolist(), np.zeros(len(self.switches))
        for number, (switch, tunable) in enumerate(zip(self._coding.switches.values(), self.switches, strict=True)):
            if tunable >= 0:
                options = self._options[tunable]
                if switch.on is not True:
                    found[number] = options.of_input(listed)
                else:
                    divergences = options.narrow if options.bits is None else options.wide
                    found[number] = divergences.of(options.key(listed))
        return np.asarray(found * np.append(factors, 1.0)[self.switches])

    def shared_costs(self, codes: Codes, factors: Array) -> list[SharedCost]:
        """What 8 bits of a layer's input cost, for all switches any of which makes it so."""
        listed, place = codes.tolist(), {name: number for number, name in enumerate(self._coding.switches)}
        found = []
        for reader, makers in self._makers.items():
            names = [self.tunables[one] for one in (reader, *makers)]
            own = [place.get(f"{name}:{ACTIVATION_BITS}", place.get(name, -1)) for name in names]
            if min(own) >= 0:  # else it is always so
                cost = self._options[reader].of_input(listed) * float(factors[reader])
                found.append(SharedCost(cost, tuple(dict.fromkeys(own))))
        return found

    def total(self, codes: Codes) -> float:
        """The sum of the predicted divergences of all tunables in INT8."""
        return math.fsum(self._divergences(codes))

    def row(self, codes: Codes) -> Array:
        """Of a point what was predicted for each tunable at first, shape (tunables,).

        Nothing where that is no number for what is in INT8 in every plan.
        """
        found = np.array(self._divergences(codes), dtype=np.float64)
        found[self._always & ~np.isfinite(found)] = 0.0
        return found

    def rows(self, points: Sequence[Parameters], codes: Codes) -> Array:
        """The same of many points, looked up once of each, shape (points, tunables)."""
        known = unchanged(self._points, points)
        new = [self.row(one)[None] for one in codes[known:]]
        self._points, self._rows = points, np.concatenate([self._rows[:known], *new])
        return self._rows

    def _divergences(self, codes: Codes) -> list[float]:
        listed = codes.tolist()
        found = [options.divergence(listed) for options in self._options]
        for reader, makers in self._makers.items():
            own = self._options[reader]
            if not own.is_int8(listed) and any(self._options[maker].is_int8(listed) for maker in makers):
                found[reader] += own.of_input(listed)
        return found


def number_of(divergence: float) -> float:
    """A divergence that can be compared."""
    return math.inf if math.isnan(divergence) else max(divergence, 0.0)
