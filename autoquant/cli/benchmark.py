"""`autoquant benchmark`: how long models take on this machine, measured side by side."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.latency_words import (
    SLOWEST,
    conditions,
    doubts,
    operator_cells,
    operator_headings,
    spread_words,
)
from autoquant.cli.output import painted, plain_table, say
from autoquant.cli.process import import_tensorflow, sigterm_as_ctrl_c, stdout_for_the_result
from autoquant.cli.words import percent

if TYPE_CHECKING:
    from rich.table import Table

    from autoquant.evaluation.latency.latency import Latency


def add_arguments(parser: arguments.Parser) -> None:
    """The models, and how they are measured."""
    from autoquant.tuning.benchmark import BenchmarkRequest

    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="a .tflite, a run whose best model is one, or a model of TensorFlow, which is converted to a float "
        ".tflite; the first is what the others are compared with",
    )
    threads, batch = BenchmarkRequest.threads, BenchmarkRequest.batch_size
    parser.add_argument("--threads", metavar="N", type=int, help=f"threads of LiteRT (default {threads})")
    parser.add_argument("--batch-size", metavar="N", type=int, help=f"samples at a time (default {batch})")
    parser.add_argument("--repeat", metavar="N", type=int, help="rounds (default: as many as three seconds allow)")
    parser.add_argument("--image-size", metavar="H,W", type=arguments.image_size, help="of images, where that is open")
    parser.add_argument("--json", action="store_true", default=False, help="print one JSON object instead of tables")
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and print what came out."""
    from autoquant.tuning.benchmark import BenchmarkRequest, lite_file

    asked = arguments.given(args, BenchmarkRequest)
    BenchmarkRequest(**asked)
    with stdout_for_the_result(), sigterm_as_ctrl_c():
        if any(lite_file(model) is None for model in args.models):
            import_tensorflow(verbose=args.verbose)
        from autoquant import api

        found = api.benchmark(*args.models, **asked)
    if args.json:
        from autoquant.reports.latency_facts import latency_facts

        say(json.dumps({"version": 1, **latency_facts(found)}, indent=2, sort_keys=True, allow_nan=False))
    else:
        say(text(found))
    return 0


def text(found: Latency) -> str:
    """The models, the slowest operators, and what is to be said of both."""
    covered = ", ".join(percent(share) for share in found.covered)
    said = [*found.statements, *doubts(found)]
    added = f"least times; all operators add up to {covered} of the model's"
    return painted(_models(found), conditions(found), "", _operators(found), added, *([""] if said else []), *said)


def _models(found: Latency) -> Table:
    table = plain_table("model", numbers=("time of a batch", "speed"))
    for number, model in enumerate(found.models):
        speed = f"{model.speed.median:.2f}x ({model.speed.low:.2f} to {model.speed.high:.2f})" if number else "1"
        table.add_row(model.name, spread_words(model.seconds), speed)
    return table


def _operators(found: Latency) -> Table:
    name, kind, *numbers = operator_headings([f"{number + 1}" for number in range(len(found.models))])
    table = plain_table(name, kind, numbers=numbers)
    for one in found.operators[: 2 * SLOWEST]:
        table.add_row(*operator_cells(one))
    return table
