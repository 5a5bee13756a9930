"""`autoquant export`: copy a plan, its record and its model out of a run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.output import say
from autoquant.cli.process import import_tensorflow, stdout_for_the_result

if TYPE_CHECKING:
    from autoquant.amct.from_file import Calibrated
    from autoquant.api import Export


def add_arguments(parser: arguments.Parser) -> None:
    """The run and the folder."""
    parser.add_argument("run", metavar="RUN", help="the folder of the run")
    parser.add_argument("--to", metavar="DIR", required=True, help="where config.json, record.txt and the model go")
    parser.add_argument("--trial", metavar="N", type=int, default=None, help="another trial than the best")
    arguments.add_simulation(parser)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Export, and tell where."""
    with stdout_for_the_result():
        import_tensorflow(verbose=args.verbose)
        from autoquant import api

        made = api.export(args.run, args.to, trial=args.trial, simulation=args.simulation)
    say(f"trial   {made.trial}\n" + written(made))
    return 0


def written(made: Export | Calibrated) -> str:
    """The files that were made, a line each."""
    return f"config  {made.config}\nrecord  {made.record}\nmodel   {made.model}\nmapping {made.mapping}"
