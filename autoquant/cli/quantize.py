"""`autoquant quantize`: apply a plan to a model, without any search."""

from __future__ import annotations

import argparse

from autoquant.cli import arguments
from autoquant.cli.evaluate import exit_code, text
from autoquant.cli.export import written_with_front
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.errors import MET
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.model.model import is_lite
from autoquant.tuning.evaluation.request import EvaluateRequest
from autoquant.tuning.quantize_request import QuantizeRequest


def add_arguments(parser: arguments.Parser) -> None:
    """The model, the plan, calibration data, and the folder."""
    arguments.add_model(parser)
    arguments.add_target(parser, io=True)
    group = parser.add_argument_group("plan and data")
    group.add_argument("--config", metavar="FILE", required=True, help="a config.json that a search or export wrote")
    group.add_argument("--calibration", metavar="DATA", required=True, help="samples; labels are not needed")
    group.add_argument("--to", metavar="DIR", required=True, help="where config.json, record.txt and the model go")
    options = {
        "--data DATA": "score what was made on this, beside the float model, as `autoquant evaluate` does",
        "--metric M": f"as of `autoquant evaluate` (default {EvaluateRequest.metric})",
        "--tolerance T": "end with exit code 1 where the score is more than this below that of the float model",
    }
    arguments.add(parser.add_argument_group("score"), options, tolerance=Tolerance.parse)
    arguments.add_reading(parser, labels=True)
    arguments.add_simulation(parser)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Quantize, and print where the files are."""
    request = QuantizeRequest(**arguments.options_for(args, QuantizeRequest))
    request.check_named()
    with working(args, tensorflow=not is_lite(args.model)) as listener:
        from autoquant.tuning.quantize import apply_plan

        saved = apply_plan(request, listener)
    say("\n".join([written_with_front(saved), *(f"note    {note}" for note in saved.notes)]))
    if saved.evaluation is None:
        return MET
    say("")
    say(text(saved.evaluation))
    return exit_code(saved.evaluation)
