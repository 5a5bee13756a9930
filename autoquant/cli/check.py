"""`autoquant check`: compare a quantized model with its record, attribute by attribute."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.model.model import check_file
from autoquant.reports.words import counted
from autoquant.tuning.events import reporter

if TYPE_CHECKING:
    from autoquant.targets.check import CheckResult


def add_arguments(parser: arguments.Parser) -> None:
    """The model and the record."""
    parser.add_argument("model", metavar="FILE.pb", help="a quantized model that autoquant saved")
    parser.add_argument(
        "--record", metavar="FILE", help="its record (default: <model>_record.txt or record.txt beside it)"
    )
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Check, and print what was compared."""
    check_file(args.model)
    with working(args) as listener:
        reporter(listener, "checking")
        from autoquant import api

        found = api.check(args.model, getattr(args, "record", None))
    say(text(found))
    return 0


def text(found: CheckResult) -> str:
    """A line for every kind of thing that was checked, then "ok"."""
    kinds = ", ".join(f"{number} {op}" for op, number in found.layers.items())
    left_out = [f"left out   in the record, not in the graph: {', '.join(found.left_out)}"] if found.left_out else []
    return "\n".join(
        [
            f"layers     {counted(sum(found.layers.values()), 'layer')} in INT8: {kinds}",
            f"weights    {found.weights:,}",
            *left_out,
            f"functions  {'included: runs in stock TensorFlow' if found.simulation else 'none: for converters'}",
            f"mapping    {'matches this file' if found.mapping else 'none'}",
            "ok",
        ]
    )
