"""`autoquant report`: a page about a run, or one that compares several."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.output import note, say
from autoquant.errors import UsageError
from autoquant.files import write_text
from autoquant.reports.page import render
from autoquant.reports.run_files import RunFiles, RunReader
from autoquant.reports.view import PICTURES, report_view
from autoquant.tuning.study.run_folder import RunFolder

COMPARISON = "comparison.html"
MANY = 100
"""Trials from which reading them may take a while."""


def add_arguments(parser: arguments.Parser) -> None:
    """The runs, and where the page goes."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, which may be going on")
    options = {
        "--to FILE": f"the page to write (default: report.html in the run's folder; {COMPARISON} with --compare)",
        "--samples N": "show at most so many of the pictures of samples that the search kept; 0 for none "
        f"(default {PICTURES})",
    }
    arguments.add(parser, options, default=None, to=Path, samples=int)
    arguments.add(parser, {"--compare": "one page with all runs side by side"}, default=False)
    arguments.add(parser, {"--open": "show the page in a browser"}, default=False)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Read the runs, write the pages, and say where they are."""
    if args.samples is not None and args.samples < 0:
        raise UsageError("--samples", f"must be at least 0, got {args.samples}", hint="for example 24, or 0")
    if args.compare and len(args.runs) < 2:
        raise UsageError("--compare", "compares two runs or more", hint="name another run, or leave --compare out")
    if args.to is not None and len(args.runs) > 1 and not args.compare:
        raise UsageError("--to", "is one page, and there are several runs", hint="give --compare, or one run")
    files = [_read(Path(path)) for path in args.runs]
    for path, page in _pages(args, files):
        write_text(path, page)
        say(str(path))
        if args.open:
            webbrowser.open(path.resolve().as_uri())
    return 0


def _read(path: Path) -> RunFiles:
    """Read a run; of many trials that takes seconds."""
    trials = sum(1 for _ in path.glob("trials/*"))
    if trials > MANY:
        note(f"reading {trials:,} trials of {path} ...")
    return RunReader(RunFolder(path)).read()


def _pages(args: argparse.Namespace, files: list[RunFiles]) -> Iterator[tuple[Path, str]]:
    if args.compare:
        from autoquant.reports.comparison import comparison_view

        yield args.to or Path(COMPARISON), render("comparison.html.j2", **comparison_view(files))
        return
    pictures = PICTURES if args.samples is None else args.samples
    for one in files:
        yield args.to or one.folder.report, render("report.html.j2", **report_view(one, pictures=pictures))
