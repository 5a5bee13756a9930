"""Inputs and outputs of two files of one model, paired by their names and forms."""

from __future__ import annotations

from collections.abc import Mapping

from autoquant.model.model import Shape

Known = Mapping[str, tuple[str, Shape | None]]
"""Names of inputs or outputs, with the kind of numbers (as NumPy has it) and the shape of a sample."""


def pair_names(wanted: Known, own: Known) -> dict[str, str]:
    """Name wanted -> own name, as far as there is no doubt: of several of one form only names tell which is which.

    >>> pair_names({"x": ("f", (4,))}, {"serving_default_input:0": ("f", (4,))})
    {'x': 'serving_default_input:0'}
    """
    if len(wanted) == len(own) == 1:
        return dict(zip(wanted, own, strict=True))
    found: dict[str, str] = {}
    for alike in (str.__eq__, _same_plain, lambda name, one: _fit(wanted[name], own[one])):
        for name in wanted:
            mine = [one for one in own if alike(name, one)]
            alone = len(mine) == 1 and sum(alike(other, mine[0]) for other in wanted) == 1
            if alone and name not in found and mine[0] not in found.values():
                found[name] = mine[0]
    return found


def _same_plain(name: str, other: str) -> bool:
    return _plain(name) == _plain(other)


def _plain(name: str) -> str:
    """A name without what converters add: 'serving_default_x:0' is x."""
    return name.removeprefix("serving_default_").partition(":")[0]


def _fit(one: tuple[str, Shape | None], other: tuple[str, Shape | None]) -> bool:
    (kind, shape), (other_kind, other_shape) = one, other
    if kind != other_kind and not {kind, other_kind} <= {"i", "u"}:
        return False
    if shape is None or other_shape is None:
        return True
    sizes = zip(shape, other_shape, strict=False)
    return len(shape) == len(other_shape) and all(None in pair or pair[0] == pair[1] for pair in sizes)


def sample_shape(shape: Shape | None) -> Shape | None:
    """The shape of one sample, from that of a batch."""
    return None if shape is None else shape[1:]
