"""Predicted divergences of tunables, looked up by the codes of a point."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.coding import SAME, Codes, Coding, unchanged
from autoquant.tuning.sampling.shared_costs import SharedCost
from autoquant.tuning.sensitivity.request import Prediction, Predictions
from autoquant.tuning.study.space import Choice, Parameters, bits_of, switch_of

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Lookup:
    """What tunables can have, looked up for all of them at once: divergences with activations of 8 bits and of 16.

    `places` (tunables, dimensions) are those of the codes that decide; times `strides`, from `starts` on, they lead to
    an entry of `narrow` and `wide`. Of those that have a switch, by number `switched`, `switches` are the places and
    `on` the codes of INT8; of those with a choice of 8 or 16 bits, `readers`, `bits` are the places and `eight` the
    codes of 8 bits.
    """

    places: Places
    strides: Places
    starts: Places
    narrow: Array
    wide: Array
    switched: Places
    switches: Places
    on: Places
    readers: Places
    bits: Places
    eight: Places

    @classmethod
    def of(cls, predictions: Predictions, coding: Coding) -> _Lookup:
        """All predictions of a tunable have the same dimensions; of those with the same settings the first counts."""
        names = [tuple(own[0].parameters) if own else () for own in predictions.values()]
        most = max(map(len, names), default=0)
        places, strides = np.zeros((2, len(names), most), dtype=np.intp)
        narrow, wide, starts = [np.zeros(0)], [np.zeros(0)], [0]
        for row, (own, each) in enumerate(zip(predictions.values(), names, strict=True)):
            sizes = [coding.sizes[coding.place[name]] for name in each]
            places[row, : len(each)] = [coding.place[name] for name in each]
            strides[row, : len(each)] = [math.prod(sizes[place + 1 :]) for place in range(len(each))]
            eight, sixteen = _entries(own, each, coding)
            narrow.append(eight)
            wide.append(sixteen)
            starts.append(starts[-1] + len(eight))
        switches, bits = list(map(switch_of, predictions)), list(map(bits_of, predictions))
        switched = [number for number, name in enumerate(switches) if name in coding.place]
        readers = [number for number, name in enumerate(bits) if name in coding.switches]
        return cls(
            places,
            strides,
            np.array(starts[:-1], dtype=np.intp),
            np.concatenate(narrow),
            np.concatenate(wide),
            np.array(switched, dtype=np.intp),
            *_codes(coding, [switches[number] for number in switched], True),
            np.array(readers, dtype=np.intp),
            *_codes(coding, [bits[number] for number in readers], 8),
        )

    def entries(self, codes: Codes) -> Places:
        """Of each tunable the entry of points, (..., tunables)."""
        return np.asarray(self.starts + (codes[..., self.places] * self.strides).sum(axis=-1))

    def is_on(self, codes: Codes) -> Flags:
        """Whether it is in INT8."""
        found = np.ones((*codes.shape[:-1], len(self.starts)), dtype=np.bool_)
        found[..., self.switched] = codes[..., self.switches] == self.on
        return found

    def is_int8(self, codes: Codes) -> Flags:
        """Whether it is in INT8, with activations of 8 bits."""
        found = self.is_on(codes)
        found[..., self.readers] &= codes[..., self.bits] == self.eight
        return found

    def of_layers(self, entries: Places) -> Array:
        """The divergences in INT8; with 16 bits of what has that choice."""
        found = self.narrow[entries]
        found[..., self.readers] = self.wide[entries[..., self.readers]]
        return found

    def of_inputs(self, entries: Places) -> Array:
        """What 8 bits of what each of the `readers` reads cost on top of 16."""
        own = entries[..., self.readers]
        narrow, wide = self.narrow[own], self.wide[own]
        return np.subtract(narrow, wide, out=narrow.copy(), where=np.isfinite(narrow))


def _entries(predictions: Sequence[Prediction], names: Sequence[str], coding: Coding) -> tuple[Array, Array]:
    """The divergences of one tunable with 8 and with 16 bits by its codes; the largest of them for any others."""
    sizes = tuple(coding.sizes[coding.place[name]] for name in names)
    narrow, wide = np.full((2, math.prod(sizes)), math.nan)
    found = [0.0, 0.0] if not predictions else [-math.inf, -math.inf]
    seen = set[tuple[int | None, ...]]()
    for one in predictions:
        codes = tuple(coding.code(name, one.parameters[name]) for name in names)
        if codes in seen:
            continue
        seen.add(codes)
        eight = number_of(one.divergence)
        sixteen = min(number_of(one.divergence if one.wide is None else one.wide), eight)
        found = [max(found[0], eight), max(found[1], sixteen)]
        offered = [code for code in codes if code is not None]
        if len(offered) == len(codes):
            place = np.ravel_multi_index(offered, sizes) if sizes else 0
            narrow[place], wide[place] = eight, sixteen
    narrow[np.isnan(narrow)], wide[np.isnan(wide)] = found
    return narrow, wide


def _codes(coding: Coding, names: Sequence[str], value: Choice) -> tuple[Places, Places]:
    """The places of dimensions, and the code of a value in each; SAME where it does not have it."""
    codes = [coding.code(name, value) for name in names]
    places = np.array([coding.place[name] for name in names], dtype=np.intp)
    return places, np.array([SAME if code is None else code for code in codes], dtype=np.intp)


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
        self._lookup = _Lookup.of(predictions, coding)
        readers = [self.tunables[reader] for reader in self._lookup.readers.tolist()]
        those = [[layer, *(one for one in makers.get(layer, ()) if one in place)] for layer in readers]
        self._rounds = np.zeros((len(readers), len(place)), dtype=np.bool_)
        for own, each in zip(self._rounds, those, strict=True):
            own[[place[one] for one in each]] = True
        parts = place | {bits_of(layer): number for number, layer in enumerate(readers, start=len(place))}
        self.inputs = np.arange(len(parts)) >= len(place)
        self.switches = np.array([parts.get(name, -1) for name in coding.switches], dtype=np.intp)
        self._sharing = list(self._sharing_of(those))
        self._always = np.isin(np.arange(len(parts)), self.switches, invert=True)
        self._always[self.inputs] = [min(switches) < 0 for switches in self._sharing]
        self._points: Sequence[Parameters] = ()
        self._rows = np.zeros((0, len(parts)))

    def _sharing_of(self, layers: Sequence[Sequence[str]]) -> Iterator[tuple[int, ...]]:
        """For each input the switches any of which makes it 8 bits, by their places; -1 for what always does."""
        place = {name: number for number, name in enumerate(self._coding.switches)}
        for names in layers:
            yield tuple(dict.fromkeys(place.get(bits_of(name), place.get(name, -1)) for name in names))

    def switch_costs(self, codes: Codes, factors: Array) -> Array:
        """Of each switch what it is predicted to add to the divergence of a point, times the factor of its part.

        Of activations, what 8 bits of what the layer reads cost.
        """
        entries = self._lookup.entries(codes)
        costs = [self._lookup.of_layers(entries), self._lookup.of_inputs(entries)]
        return np.asarray(np.append(np.concatenate(costs) * factors, 0.0)[self.switches])

    def shared_costs(self, codes: Codes, factors: Array) -> list[SharedCost]:
        """What 8 bits of a layer's input cost, for all switches any of which makes it so."""
        costs = self._lookup.of_inputs(self._lookup.entries(codes)) * factors[self.inputs]
        each = zip(costs.tolist(), self._sharing, strict=True)
        return [SharedCost(cost, switches) for cost, switches in each if min(switches) >= 0]  # else it is always so

    def total(self, codes: Codes) -> float:
        """The sum of the predicted divergences of all tunables in INT8."""
        return math.fsum(self._divergences(codes).tolist())

    def row(self, codes: Codes) -> Array:
        """Of a point what was predicted at first, shape (parts,), or of several, (points, parts).

        Nothing where that is no number for what is in INT8 in every plan.
        """
        found = self._divergences(codes)
        found[self._always & ~np.isfinite(found)] = 0.0
        return found

    def rows(self, points: Sequence[Parameters], codes: Codes) -> Array:
        """The same of many points, looked up once of each, shape (points, parts)."""
        known = unchanged(self._points, points)
        self._points, self._rows = points, np.concatenate([self._rows[:known], self.row(codes[known:])])
        return self._rows

    def _divergences(self, codes: Codes) -> Array:
        lookup, entries = self._lookup, self._lookup.entries(codes)
        layers = np.where(lookup.is_on(codes), lookup.of_layers(entries), 0.0)
        if not lookup.readers.size:
            return layers
        rounded = (lookup.is_int8(codes)[..., None, :] & self._rounds).any(axis=-1)
        inputs = np.where(rounded, lookup.of_inputs(entries), 0.0)
        return np.concatenate([layers, inputs], axis=-1)


def number_of(divergence: float) -> float:
    """A divergence that can be compared."""
    return math.inf if math.isnan(divergence) else max(divergence, 0.0)
