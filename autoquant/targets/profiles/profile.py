"""The profile of a device: what it takes of a .tflite, each fact by a source that is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from autoquant.targets.profiles.limits import Limit

DOCUMENTATION = "by its documentation alone, on no device"
"""How a profile was checked where nothing else could be had."""
INTEGER_ONLY_OPTION = "--integer-only"
ENDS = ("float32", "int8")
"""All types that inputs and outputs can have."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document that facts are taken from: its title, its version or date, and where it is."""

    title: str
    version: str
    url: str


class Float(StrEnum):
    """What runs operators that stay in float; of some devices nothing does, so that none may."""

    DEVICE = "the device"
    CPU = "the CPU"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a device takes of a .tflite.

    `operators` are those that it can take, by LiteRT's names, `per_channel` those whose weight may have a scale for
    every channel; None where the sources do not say which. With `symmetric` no activation has an offset, with
    `power_of_two` all scales are powers of two. `int16` are operators that can have activations of 16 bits and weights
    of 8, None where the sources say that there are some but not which. `io` are the types that inputs and outputs can
    have. What stays in float is run by `in_float`. Operators that the device cannot take are run by the CPU if
    `has_cpu`, and by nothing otherwise. `fixed_sizes` says that no size of a tensor may be open. `takes_tflite` is
    False where its own tools make another file. `not_known` is what the sources leave open, or what of them is not
    checked, `checked` how the profile was checked. `integer_only` says that a file without float was asked for,
    whatever the device runs.
    """

    name: str
    device: str
    sources: tuple[Source, ...]
    operators: frozenset[str] | None
    per_channel: frozenset[str] | None
    symmetric: bool = False
    power_of_two: bool = False
    int16: frozenset[str] | None = frozenset()
    io: tuple[str, ...] = ENDS
    in_float: Float = Float.CPU
    has_cpu: bool = True
    fixed_sizes: bool = False
    takes_tflite: bool = True
    limits: tuple[Limit, ...] = ()
    not_known: tuple[str, ...] = ()
    checked: str = DOCUMENTATION
    integer_only: bool = False

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(f"profile {self.name} must name its sources")
        if not self.io or not set(self.io) <= set(ENDS):
            raise ValueError(f"io must be some of {', '.join(ENDS)}, got {self.io}")

    @property
    def all_int8(self) -> bool:
        """Whether nothing may stay in float."""
        return self.integer_only or self.in_float is Float.NOTHING

    @property
    def no_float_by(self) -> str:
        """What leaves nothing in float, in words; '' where something may."""
        if self.integer_only:
            return INTEGER_ONLY_OPTION
        return f"profile {self.name}" if self.all_int8 else ""

    def may_be_wide(self, operator: str) -> bool:
        """Whether activations of an operator may have 16 bits, as far as is known."""
        return self.int16 is None or operator in self.int16

    def may_have_channels(self, operator: str) -> bool:
        """Whether the weight of an operator may have a scale for every channel, as far as is known."""
        return self.per_channel is None or operator in self.per_channel

    def rules(self) -> Iterator[str]:
        """What it asks for, a sentence each."""
        yield f"operators: {_listed(self.operators, 'not listed by the sources, all are taken to be possible')}"
        channels = _listed(self.per_channel, "the sources do not say of which operators, none is refused")
        yield f"weights with a scale for every channel: {channels}"
        if self.symmetric:
            yield "activations must be symmetric, without an offset"
        if self.power_of_two:
            yield "all scales must be powers of two"
        yield f"activations of 16 bits with weights of 8: {_listed(self.int16, 'possible, of which operators is open')}"
        yield f"inputs and outputs: {' or '.join(self.io)}"
        yield f"what stays in float is run by {self.in_float}" if not self.all_int8 else "nothing may stay in float"
        yield f"operators that it cannot take are run by {'the CPU' if self.has_cpu else 'nothing'}"
        if self.fixed_sizes:
            yield "all sizes of tensors must be fixed: a batch that is open becomes 1"
        yield from (limit.words for limit in self.limits)


def operators_named(names: str) -> frozenset[str]:
    """Operators by LiteRT's names, separated by spaces.

    >>> sorted(operators_named("CONV_2D ADD"))
    ['ADD', 'CONV_2D']
    """
    return frozenset(names.split())


def _listed(operators: frozenset[str] | None, otherwise: str) -> str:
    return otherwise if operators is None else ", ".join(sorted(operators)) or "none"
