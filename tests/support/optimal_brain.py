"""Optimal Brain Quantization in the order of GPTQ, as the papers write it: the inverse updated input by input."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoquant.quantization.rounding import DAMPING


def textbook(weight: Any, scales: Any, moment: Any, *, lowest: int, highest: int) -> Any:
    """One input after the other: round it, and let those that are left take up the error by the inverse of H."""
    steps = weight / scales[:, None]
    nearest = np.clip(np.rint(steps), lowest, highest)
    diagonal = np.diagonal(moment)
    left, found = steps.copy(), np.empty_like(steps)
    inverse = np.linalg.inv(moment + (DAMPING * diagonal.mean() or 1.0) * np.eye(len(moment)))
    for place in np.argsort(diagonal, kind="stable")[::-1]:
        found[:, place] = np.clip(np.rint(left[:, place]), lowest, highest)
        error = (left[:, place] - found[:, place]) / inverse[place, place]
        left -= error[:, None] * inverse[place]
        inverse -= np.outer(inverse[:, place], inverse[place]) / inverse[place, place]
        inverse[place, place] = 1.0  # it is not read again
    better = [(e @ moment @ e) < (n @ moment @ n) for e, n in zip(steps - found, steps - nearest, strict=True)]
    return np.where(np.array(better)[:, None], found, nearest)


def squared_errors(errors: Any, moment: Any) -> Any:
    """E[(e x)^2] of errors e of rows, (..., rows, inputs), over inputs x of this second moment; (..., rows)."""
    return ((errors @ moment) * errors).sum(axis=-1)
