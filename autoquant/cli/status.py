"""`autoquant status`: what a search and its workers are doing."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.output import labelled, page, say, terminal_columns
from autoquant.pulse import duration

if TYPE_CHECKING:  # which loads Optuna
    from autoquant.tuning.fleet.status import ProcessStatus, Status

EVERY = 2.0
"""Seconds from one look to the next with --watch."""
Row = tuple[str, str]


def add_arguments(parser: arguments.Parser) -> None:
    """The search, and how often to look."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="the folder of a run; or give --storage and --study")
    arguments.add_storage(parser)
    arguments.add(parser, {"--watch": "look again every two seconds until the search is over"}, default=False)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Look, once or until the search is over."""
    from autoquant.tuning.fleet.status import read_status

    given = {name: value for name, value in vars(args).items() if name in ("storage", "study")}
    where = Path(args.run) if "run" in args else None
    given = given if where else arguments.with_environment(given)
    while True:
        found = read_status(where, **given)
        say(
            json.dumps(found.facts())
            if args.json
            else page([labelled(rows(found))], columns=terminal_columns(sys.stdout))
        )
        if not args.watch or is_over(found):
            return 0
        time.sleep(EVERY)


def is_over(status: Status) -> bool:
    """Whether nobody works on the search any more."""
    return not status.going_on and (status.owner is None or bool(status.owner.left))


def rows(status: Status) -> Iterator[Row]:
    """What is to be read of a status."""
    yield "search", status.where
    counts = [f"{count:,} {WORDS.get(state, state)}" for state, count in status.trials.items()]
    yield "trials", ", ".join(counts) or "none yet"
    if status.best is not None:
        some = ("drop", "layers in INT8", "share in INT8")
        known = [f"{name} {_shown(status.best[name])}" for name in some if name in status.best]
        yield "best", ", ".join([f"trial {status.best['number']}", *known])
    if status.owner is not None:
        yield "owner", _line(status.owner)
    elif status.going_on is not None:
        yield "owner", "works on it, with no workers" if status.going_on else "nobody works on it"
    for worker in status.workers:
        yield f"worker {worker.number}", _line(worker)


WORDS = {"complete": "within tolerance", "pruned": "not within", "fail": "failed"}


def _line(process: ProcessStatus) -> str:
    where = f"{process.host}, process {process.pid}"
    if process.left:
        return f"{where}: {process.left}"
    doing = f"{process.doing}; " if process.doing else ""
    return f"{where}: {doing}last sign of life {duration(process.seconds)} ago"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
