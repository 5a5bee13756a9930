"""`autoquant benchmark`: how long models take on this machine, measured side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from autoquant.cli import arguments
from autoquant.cli.output import Block, Table, page, say
from autoquant.cli.process import interruptible, working
from autoquant.evaluation.latency.latency import Latency, OperatorTime
from autoquant.formats.codec import json_text
from autoquant.messages import UNKNOWN
from autoquant.model.model import check_file
from autoquant.options import image_size
from autoquant.reports.words import counted, milliseconds, percent, spread
from autoquant.tuning.benchmark import BenchmarkRequest, lite_file

SLOWEST = 10
"""Operators that are shown; --json has all."""


def add_arguments(parser: arguments.Parser) -> None:
    """The models, and how they are measured."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="a .tflite, a run whose best model is one, or a model of TensorFlow, which is converted to a float "
        ".tflite; the first is what the others are compared with",
    )
    options = {
        "--threads N": f"threads of LiteRT (default {BenchmarkRequest.threads})",
        "--batch-size N": f"samples at a time (default {BenchmarkRequest.batch_size})",
        "--repeat N": "rounds (default: as many as three seconds allow)",
        "--image-size H,W": "of images, where the model leaves it open",
        "--signature KEY": "which of several signatures of a SavedModel",
    }
    arguments.add(parser, options, threads=int, batch_size=int, repeat=int, image_size=image_size)
    arguments.add_feed(parser)
    arguments.add_trust(parser)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the times."""
    options = arguments.options_for(args, BenchmarkRequest)
    BenchmarkRequest(**options)
    for model in args.models:
        check_file(model)
    tensorflow = any(lite_file(model) is None for model in args.models)
    with interruptible(), working(args, tensorflow=tensorflow) as listener:
        from autoquant import api

        found = api.benchmark(*args.models, listener=listener, **options)
    say(json_text({"version": 1, **found.facts()}) if args.json else text(found))
    return 0


def text(found: Latency) -> str:
    """Models side by side, their slowest operators, and what can be concluded."""
    rows = []
    for number, model in enumerate(found.models):
        speed = model.speed
        told = f"{speed.median:.2f}x ({speed.lower_quartile:.2f} to {speed.upper_quartile:.2f})" if number else "1"
        rows.append((model.name, spread(model.seconds), told))
    models = Table(("model", "time of a batch", "speed"), rows, words=1)
    operators = operator_table(found, [f"{number + 1}" for number in range(len(found.models))], most=SLOWEST)
    covered = ", ".join(percent(model.operators_cover) for model in found.models)
    added = f"shortest times; all operators add up to {covered} of the model's"
    blocks: list[Block] = [[models, conditions(found)], [operators, added], [*found.statements, *doubts(found)]]
    return page(blocks, columns=None)


def conditions(latency: Latency) -> str:
    """How it was measured."""
    turns = f"median of {counted(latency.rounds, 'round')} in turns, with quartiles"
    return f"batch {latency.batch_size}, {counted(latency.threads, 'thread')}, {turns}"


def doubts(latency: Latency) -> Iterator[str]:
    """Why the times are unreliable, if they are."""
    if latency.noise:
        yield f"unreliable: {latency.noise}; measure again on an idle machine"


def operator_table(latency: Latency, names: Sequence[str], *, most: int) -> Table:
    """The slowest operators: time in each model, called `names`, and the speed relative to the first."""
    headings = ["slowest operators", "kind", names[0]]
    for name in names[1:]:
        headings += [name, "speed"]
    return Table(headings, [_operator_cells(one) for one in latency.operators[:most]])


def _operator_cells(one: OperatorTime) -> list[str]:
    times = [UNKNOWN if second is None else milliseconds(second) for second in one.seconds]
    cells = [one.name.partition(";")[0], one.operator, times[0]]  # joined operators: the last of them comes first
    for number in range(1, len(times)):
        speed = one.speed(number)
        cells += [times[number], UNKNOWN if speed is None else f"{speed:.2f}x"]
    return cells
