"""What a dry run has found, printed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autoquant.cli.output import Row, labelled, page, say
from autoquant.errors import MET
from autoquant.evaluation.scoring.rows import size_text
from autoquant.formats.codec import json_text
from autoquant.pulse import duration
from autoquant.reports.words import counted, macs, number

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.tuning.dry_run import Estimate


def show_estimate(found: Estimate, args: argparse.Namespace) -> int:
    """Print it; returns the exit code."""
    say(json_text(found.facts()) if args.json else page([labelled(rows(found))], columns=None))
    return MET


def rows(found: Estimate) -> Iterator[Row]:
    """What was found, and what a search will take."""
    yield "model", f"{found.model}: {counted(found.layers, 'layer')}, {macs(found.multiply_adds)} multiply-adds"
    yield from (("warning", text) for text in found.warnings)
    yield "FP32", f"{found.metric} {number(found.baseline)} on {counted(found.tried, 'sample')} from all over the data"
    holdout = f"{found.holdout_samples:,} holdout" if found.holdout_samples else f"no holdout: {found.no_holdout}"
    yield "data", f"{counted(found.search_samples, 'sample')} for the search, {holdout}"
    yield "", f"{counted(found.calibration_samples, 'sample')} for calibration"
    yield "engine", found.engine
    scored = f"a trial that is scored on all samples {duration(found.trial)}"
    yield "time", f"until the first trial {duration(found.preparation)}, {scored}"
    certification = f"certification {duration(found.certification)}, " if found.holdout_samples else ""
    trials = counted(found.max_trials, "trial")
    yield "", f"{certification}all with {trials} at most {duration(found.at_most)}, most of them stopped early"
    yield "", "and some passes over the calibration samples, if all layers in INT8 miss the tolerance"
    disk = f"{size_text(found.disk)} at most ({size_text(found.free_disk)} free)"
    yield "disk", f"{disk}, an INT8 model {kilobytes(found.model_bytes)}"
    free = "" if found.free_memory is None else f" ({size_text(found.free_memory)} free)"
    if found.memory is not None:
        yield "memory", f"{size_text(found.memory)}{free}"
    if found.disk > found.free_disk or (found.memory or 0) > (found.free_memory or found.memory or 0):
        yield "short", "there is not enough of that: free some, or give --cache off, or a smaller --batch-size"
    yield "run", "none was made; without --dry-run this is what is searched"


def kilobytes(size: int) -> str:
    """The size of a file.

    >>> kilobytes(12_345), kilobytes(4_000_000)
    ('12 kB', '4 MB')
    """
    return f"{size / 1e3:.0f} kB" if size < 1e6 else size_text(size)
