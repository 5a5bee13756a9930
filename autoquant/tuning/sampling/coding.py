"""Points of a search space as rows of numbers, so that a point is compared with all trials at once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.problem import Choices, switches_of, unit_of
from autoquant.tuning.study.space import Choice, Parameters

Codes = NDArray[np.int16]
"""Of each dimension the place of its choice, shape (..., dimensions)."""
Layers = NDArray[np.bool_]
"""Of each switch whether it is on, shape (..., switches), in the order of `Coding.switches`: of layers in INT8, and of
activations of 8 bits, where 16 can be chosen."""

SAME = -1
"""The code of a dimension that a change leaves as it is."""


class Coding:
    """How the points of a search are coded.

    `names` are the dimensions, `sizes` how many choices each has, `switches` what can be in INT8 or not, by name.
    `whole` are the places of dimensions of the whole model, `settings` those of all dimensions but the switches;
    `layers` has for each switch the place of its layer's, or its own.
    """

    def __init__(self, choices: Choices) -> None:
        dimensions = choices.dimensions
        self.names, self.switches = tuple(dimensions), switches_of(choices)
        self._values = list(dimensions.values())
        self._codes: list[dict[Choice, int]] = [{own: code for code, own in enumerate(each)} for each in self._values]
        self.sizes = tuple(len(own) for own in self._values)
        self.place = {name: place for place, name in enumerate(self.names)}
        own = list(self.switches.values())
        self._switches = _places(self.place[switch.dimension] for switch in own)
        self._on, self._off = (
            np.array([SAME if code is None else code for code in codes], dtype=np.int16)
            for codes in (
                [self.code(switch.dimension, switch.on) for switch in own],
                [self.code(switch.dimension, switch.off) for switch in own],
            )
        )
        switches = set(self._switches.tolist())
        self.whole = _places(place for place, name in enumerate(self.names) if not unit_of(name))
        self.settings = _places(place for place in range(len(self.names)) if place not in switches)
        number = {name: place for place, name in enumerate(self.switches)}
        self._owners = _places(number.get(unit_of(self.names[place]), len(number)) for place in self.settings)
        self.layers = _places(number.get(switch.layer, number[name]) for name, switch in self.switches.items())

    def encode(self, point: Parameters) -> Codes:
        """The row of a point."""
        return np.array([codes[point[name]] for name, codes in zip(self.names, self._codes, strict=True)], np.int16)

    def decode(self, row: Codes) -> Parameters:
        """The point of a row."""
        return {name: own[code] for name, own, code in zip(self.names, self._values, row.tolist(), strict=True)}

    def code(self, name: str, value: Choice) -> int | None:
        """The code of a choice; None where the dimension does not have it."""
        return self._codes[self.place[name]].get(value)

    def changed(self, row: Codes, parameters: Parameters) -> Codes:
        """The same point with other choices for these dimensions."""
        changed = row.copy()
        for name, value in parameters.items():
            changed[self.place[name]] = self._codes[self.place[name]][value]
        return changed

    def int8(self, rows: Codes) -> Layers:
        """The switches that are on in one point, or in several; none of a layer in float."""
        return self.meaningful(np.asarray(rows[..., self._switches] == self._on))

    def meaningful(self, on: Layers) -> Layers:
        """These switches without those of layers in float."""
        return np.asarray(on & on[..., self.layers])

    def with_int8(self, row: Codes, int8: Layers) -> Codes:
        """The same point with just these switches on."""
        changed = row.copy()
        changed[self._switches] = np.where(int8, self._on, self._off)
        return changed

    def key(self, parameters: Parameters) -> bytes:
        """What distinguishes a plan from others: all but the settings of layers in float, which mean nothing."""
        row = self.encode(parameters)
        on = self.int8(row)
        row[self.settings[~self.relevant(on)]] = SAME
        row[self._switches[~on & ~on[self.layers]]] = SAME
        return row.tobytes()

    def relevant(self, int8: Layers) -> Layers:
        """Of each of `settings` whether it means anything: it does not where it is of a layer in float."""
        always = np.ones((*int8.shape[:-1], 1), dtype=np.bool_)  # those that are of no layer
        return np.asarray(np.concatenate([int8, always], axis=-1)[..., self._owners])

    @cached_property
    def everywhere(self) -> list[tuple[Codes, str]]:
        """Each value of each setting of layers, and each pair of such, for all layers that have these, with words."""
        settings: dict[str, list[int]] = {}
        for place in self.settings.tolist():
            if unit_of(self.names[place]):
                settings.setdefault(self.names[place].rpartition(":")[2], []).append(place)
        values = {
            setting: list(dict.fromkeys(value for place in places for value in self._values[place]))
            for setting, places in settings.items()
        }
        found = []
        for some in (*combinations(settings, 1), *combinations(settings, 2)):
            for chosen in product(*(values[setting] for setting in some)):
                change, words = np.full(len(self.names), SAME, dtype=np.int16), []
                for setting, value in zip(some, chosen, strict=True):
                    for place in settings[setting]:
                        change[place] = self._codes[place].get(value, SAME)
                    words.append(f"{setting} {value}")
                found.append((change, ", ".join(words)))
        return found

    def own(self, layer: int) -> NDArray[np.intp]:
        """The places of the settings of a layer and of the whole model."""
        return np.concatenate([self.whole, self.settings[self._owners == layer]])


def _places(numbers: Iterable[int]) -> NDArray[np.intp]:
    return np.fromiter(numbers, dtype=np.intp)


def unchanged(before: Sequence[object], now: Sequence[object]) -> int:
    """How many of these, from the first on, are the same objects as before."""
    most = min(len(before), len(now))
    if all(map(operator.is_, before, now)):
        return most
    return next(place for place, (one, other) in enumerate(zip(before, now, strict=False)) if one is not other)
