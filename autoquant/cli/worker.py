"""`autoquant worker`: carry out trials of a search that runs elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.output import say
from autoquant.cli.process import prepared
from autoquant.errors import UsageError
from autoquant.options import seconds
from autoquant.tuning.study.run_folder import RunFolder

EXIT_CODES = """\
exit codes:
  0    the search has ended, or this worker has done what it was to
  2    refused: something here is not what the search has
  70   internal error, a bug in autoquant
  75   the storage was away for too long
  130  interrupted (Ctrl-C, SIGTERM); its trial was given back"""


def add_arguments(parser: arguments.Parser) -> None:
    """The search, where its files are here, and when to leave."""
    parser.epilog = EXIT_CODES
    what = "the folder of its run, on a disk that this machine shares with the search; or give --storage and --study"
    parser.add_argument("run", metavar="RUN", nargs="?", help=what)
    arguments.add_storage(parser)
    arguments.add_places(parser)
    arguments.add_trust(parser.add_argument_group("model"))
    options = {
        "--max-trials N": "leave after so many trials",
        "--idle T": "leave after so long without a trial: 90s, 10m, 2h (default: wait for the end of the search)",
    }
    arguments.add(parser.add_argument_group("when to leave"), options, max_trials=int, idle=seconds)
    arguments.add_screen(parser)


def run(args: argparse.Namespace) -> int:
    """Work, and say why that ended."""
    given = {name: value for name, value in vars(args).items() if name in GIVEN}
    if "run" in args:
        given["run"] = Path(args.run)
    else:
        given = arguments.with_environment(given)
    if given.get("max_trials", 1) < 1:
        raise UsageError("--max-trials", f"must be at least 1, got {given['max_trials']}", hint="for example 10")
    from autoquant.tuning.fleet.worker import check_search, work_for

    check_search(given.get("run"), given.get("storage", ""), given.get("study", ""))
    with prepared(args, _model(args)) as listener:
        why = work_for(listener=listener, **given)
    say(why)
    return 0


def _model(args: argparse.Namespace) -> str:
    """The model, as far as it is known: one from a storage may need TensorFlow."""
    if "model" in args or "run" not in args:
        return str(getattr(args, "model", ""))
    return str(RunFolder(Path(args.run)).read_request()["request"]["model"])


GIVEN = ("storage", "study", "model", "data", "calibration", "metric", "max_trials", "idle", "trust_model")
