"""`autoquant resume`: go on with a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.process import prepared
from autoquant.cli.summary import show_result
from autoquant.model.model import check_file
from autoquant.tuning.study.request import ACCEPTABLE
from autoquant.tuning.study.run_folder import RunFolder

AS_BEFORE = "as the run was started"


def add_arguments(parser: arguments.Parser) -> None:
    """The run, and what may change: its budget."""
    parser.epilog = arguments.EXIT_CODES
    parser.add_argument("run", metavar="RUN", help="the folder of the run")
    arguments.add_budget(parser, trials=AS_BEFORE, timeout=AS_BEFORE)
    arguments.add_places(parser, storage=True)
    what = "go on with another metric, or calibration: all trials are scored again with it; can be repeated"
    parser.add_argument("--accept-changed", metavar="WHAT", action="append", choices=ACCEPTABLE, help=what)
    arguments.add_certify(parser.add_argument_group("certificate"), otherwise=AS_BEFORE)
    arguments.add_trust(parser.add_argument_group("model"))
    arguments.add_samples(parser.add_argument_group("report"), default=AS_BEFORE)
    arguments.add_keep_models(parser)
    arguments.add_jobs(parser, otherwise=AS_BEFORE)
    arguments.add_unwatched(parser)
    arguments.add_screen(parser)


def run(args: argparse.Namespace) -> int:
    """Resume, and print the result."""
    run = RunFolder(Path(args.run))
    run.require_run()
    model = getattr(args, "model", run.read_request()["request"]["model"])
    check_file(model)
    if "storage" in args:
        from autoquant.tuning.study.databases import check_url

        check_url(args.storage)
    with prepared(args, model) as listener:
        from autoquant import api

        changed = arguments.search_options(args)
        result = api.resume(args.run, listener=listener, accept_changed=getattr(args, "accept_changed", ()), **changed)
    return show_result(result, args)
