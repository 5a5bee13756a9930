"""What the bounds of a certificate take for granted: which samples are independent of which."""

from __future__ import annotations

import shlex

from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.units import largest_unit, suspected_groups, units_of
from autoquant.evaluation.statistics.units import Units


def units_in(data: Dataset, unit: str, everything: Dataset | None = None) -> Units | None:
    """The units of samples by the array of this name, the largest as in `everything`; None where each is one."""
    labels = units_of(data, unit)
    if labels is None:
        return None
    others = units_of(everything, unit) if everything is not None else labels
    largest = largest_unit(labels, labels if others is None else others)
    return Units(labels, largest) if largest > 1 else None


def assumption(data: Dataset, unit: str) -> str:
    """In words, of these samples."""
    if unit:
        return f"units of '{unit}' are independent of each other, and none is larger than those seen"
    found = suspected_groups(data)
    if found is None:
        return "samples are independent of each other"
    option = shlex.join(["--unit", found.unit]) if found.unit else "--unit"
    doubt = f"if these belong together, the bound is too low, and {option} says so"
    return f"samples are independent of each other, though {found.text}: {doubt}"
