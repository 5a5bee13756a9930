"""Models of a fixed batch size, run on batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from autoquant.evaluation.data.batch import Array

Run = Callable[[Sequence[Array]], list[Array]]
"""Gives what a model computes of one batch, arrays in, arrays out."""


def fixed_batch(shapes: Iterable[Sequence[int | None]]) -> int | None:
    """The batch size that the first dimensions of the inputs fix, or None where they leave it open (None or -1)."""
    return next((shape[0] for shape in shapes if len(shape) and shape[0] is not None and shape[0] >= 0), None)


def run_fixed(run: Run, feeds: Sequence[Array], batch: int | None, *, cut: bool) -> list[Array]:
    """Run a model that takes batches of exactly `batch` (None: of any size) as often as it takes.

    The last sample is repeated to fill the last batch. `cut` says that a row of a result is a sample, as of outputs:
    then rows of repeated samples are taken away, from results that have as many rows as samples were run; scalars are
    those of the first batch.
    """
    size = len(feeds[0])
    if batch is None or batch == size:
        return run(feeds)
    parts = [run(_filled(feeds, start, batch)) for start in range(0, size, batch)]
    joined = [np.concatenate(arrays) if arrays[0].ndim else arrays[0] for arrays in zip(*parts, strict=True)]
    padded = len(parts) * batch
    if cut:  # an inner tensor may have its samples on another axis
        joined = [rows[:size] if rows.ndim and len(rows) == padded else rows for rows in joined]
    return joined


def _filled(feeds: Sequence[Array], start: int, batch: int) -> list[Array]:
    """`batch` samples from `start` on, the last one repeated where they end before."""
    rows = np.minimum(np.arange(start, start + batch), len(feeds[0]) - 1)
    return [feed[rows] for feed in feeds]
