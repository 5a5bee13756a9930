"""Predicted divergences of tunables, looked up by the codes of a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.coding import Codes, Coding, unchanged
from autoquant.tuning.sensitivity.request import Prediction, Predictions
from autoquant.tuning.study.space import Parameters, switch_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Options:
    """What one tunable can have: the divergences by the codes at `places`, the largest of them for any others.

    `switch` is the place of its switch, where it has one, and `on` the code of that in INT8.
    """

    switch: int | None
    on: int | None
    places: tuple[int, ...]
    divergences: dict[tuple[int | None, ...], float]
    otherwise: float

    @classmethod
    def of(cls, tunable: str, predictions: Sequence[Prediction], coding: Coding) -> _Options:
        """All predictions of a tunable have the same dimensions; of those with the same settings the first counts."""
        names = tuple(predictions[0].parameters) if predictions else ()
        found: dict[tuple[int | None, ...], float] = {}
        for one in predictions:
            codes = tuple(coding.code(name, one.parameters[name]) for name in names)
            found.setdefault(codes, number_of(one.divergence))
        switch = switch_of(tunable)
        on = coding.code(switch, True) if switch in coding.place else None
        places = tuple(coding.place[name] for name in names)
        return cls(coding.place.get(switch), on, places, found, max(found.values(), default=0.0))

    def divergence(self, codes: Sequence[int]) -> float:
        """The divergence with these codes of all dimensions, 0 in float."""
        if self.switch is not None and codes[self.switch] != self.on:
            return 0.0
        return self.divergences.get(tuple(codes[place] for place in self.places), self.otherwise)


class PredictionTable:
    """The `predictions` under the same settings of the whole model.

    `tunables` are theirs; `layers` has for each layer with a switch the place of its tunable, -1 where it has none.
    """

    def __init__(self, predictions: Predictions, coding: Coding) -> None:
        self.predictions, self.tunables = predictions, tuple(predictions)
        place = {tunable: number for number, tunable in enumerate(self.tunables)}
        self.layers = np.array([place.get(layer, -1) for layer in coding.layers], dtype=np.intp)
        self._options = [_Options.of(tunable, own, coding) for tunable, own in predictions.items()]
        self._always = np.isin(np.arange(len(self.tunables)), self.layers, invert=True)
        self._points: Sequence[Parameters] = ()
        self._rows = np.zeros((0, len(self.tunables)))

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
        return [options.divergence(listed) for options in self._options]


def number_of(divergence: float) -> float:
    """A divergence that can be compared."""
    return math.inf if math.isnan(divergence) else max(divergence, 0.0)
