"""Tensors whose range a few values far from all others decide, so that INT8 has no levels left for these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoquant.calibration.distribution import Distribution
from autoquant.model.layer import Layer

FRACTION = 0.9999
"""The central part of the values that the range should serve; one value at either end is left out at least."""
WIDE = 64.0
"""So many times as wide as that, a range leaves INT8 four levels of 256 for it."""
MOST = 3
"""Ranges that a sentence tells."""


@dataclass(frozen=True, slots=True)
class WideRange:
    """A tensor's smallest and largest value, and between which nearly all lie; `where` names what reads it."""

    where: str
    low: float
    high: float
    usual_low: float
    usual_high: float

    @property
    def times(self) -> float:
        """How many times as far from zero as nearly all values the farthest is."""
        return max(-self.low, self.high) / max(-self.usual_low, self.usual_high)

    def __str__(self) -> str:
        usual = f"{self.usual_low:.4g}..{self.usual_high:.4g}"
        return f"{self.where} has {self.low:.4g}..{self.high:.4g}, of which {FRACTION:.2%} within {usual}"


def wide_ranges(tensors: Mapping[str, Distribution], layers: Iterable[Layer]) -> tuple[WideRange, ...]:
    """The wide ranges among those that layers read, the widest first; each is called by its first reader."""
    readers: dict[str, str] = {}
    for layer in layers:
        for tensor in layer.activations:
            readers.setdefault(tensor, f"the input of {layer.name}")
    found = (_range(where, tensors[name]) for name, where in readers.items() if name in tensors)
    wide = [one for one in found if max(-one.usual_low, one.usual_high) > 0.0 and one.times >= WIDE]
    return tuple(sorted(wide, key=lambda one: -one.times))


def wide_text(wide: Sequence[WideRange]) -> str:
    """A sentence for the user, who must find the sample or choose ranges that clip."""
    more = f"; and {len(wide) - MOST} more" if len(wide) > MOST else ""
    shown = "; ".join(map(str, wide[:MOST])) + more
    hint = "is there a sample to remove? act_algo percentile clips such values, minmax leaves the others no levels"
    return f"a few calibration values decide a range: {shown}; {hint}"


def _range(where: str, seen: Distribution) -> WideRange:
    if seen.count < 3:
        return WideRange(where, seen.low, seen.high, seen.low, seen.high)
    k = 1 + max(1, int((1.0 - FRACTION) / 2.0 * seen.count))
    return WideRange(where, seen.low, seen.high, seen.smallest(k), seen.largest(k))
