"""Gradient descent on arrays by name: Adam, with a unit and limits for each array."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autoquant.array import Array

FIRST, SECOND = 0.9, 0.999
LEAST = 1e-30
"""What is added to the root of the second moment: so little that gradients of any size count."""


@dataclass(frozen=True)
class Parameter:
    """An array that is trained: where it starts, by how much one step of rate 1 moves it, and its limits."""

    start: Array
    unit: float
    low: Array | float = -math.inf
    high: Array | float = math.inf


@dataclass
class Adam:
    """Steps of Adam (Kingma, Ba 2014, arXiv:1412.6980) in the unit of each parameter, within its limits."""

    parameters: Mapping[str, Parameter]
    steps: int = 0
    _first: dict[str, Array] = field(default_factory=dict)
    _second: dict[str, Array] = field(default_factory=dict)

    def step(self, values: Mapping[str, Array], gradients: Mapping[str, Array], rate: float) -> dict[str, Array]:
        """The values after one step against their gradients, float32."""
        self.steps += 1
        found = {}
        for name, value in values.items():
            one, gradient = self.parameters[name], gradients[name]
            first = self._first[name] = FIRST * self._first.get(name, 0.0) + (1 - FIRST) * gradient
            second = self._second[name] = SECOND * self._second.get(name, 0.0) + (1 - SECOND) * np.square(gradient)
            mean, size = first / (1 - FIRST**self.steps), np.sqrt(second / (1 - SECOND**self.steps))
            moved = value - rate * one.unit * mean / (size + LEAST)
            found[name] = np.asarray(np.clip(moved, one.low, one.high), np.float32)
        return found


def cosine_rate(step: int, steps: int, highest: float) -> float:
    """The rate of a step, from the highest at step 0 down to almost 0 at the last of so many (Loshchilov, Hutter 2016).

    >>> cosine_rate(0, 100, 0.5), cosine_rate(50, 100, 0.5)
    (0.5, 0.25)
    """
    return highest * (1 + math.cos(math.pi * step / steps)) / 2
