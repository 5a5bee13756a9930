"""`autoquant quantize`: apply a plan to a model, without any search."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.export import written_with_front
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.formats.config_json import load_config
from autoquant.model.model import check_file, is_lite
from autoquant.tuning.study.choices import check_target
from autoquant.tuning.study.request import DataRequest, SearchRequest


def add_arguments(parser: arguments.Parser) -> None:
    """The model, the plan, calibration data, and the folder."""
    arguments.add_model(parser)
    arguments.add_target(parser, io=True)
    group = parser.add_argument_group("plan and data")
    group.add_argument("--config", metavar="FILE", required=True, help="a config.json that a search or export wrote")
    group.add_argument("--calibration", metavar="DATA", required=True, help="samples; labels are not needed")
    group.add_argument("--to", metavar="DIR", required=True, help="where config.json, record.txt and the model go")
    arguments.add_reading(parser, labels=False)
    arguments.add_simulation(parser)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Quantize, and print where the files are."""
    options = arguments.options_for(args, SearchRequest)
    target = {name: options[name] for name in ("target", "io") if name in options}
    check_target(args.model, **target, simulation=args.simulation)
    check_file(args.model)
    load_config(Path(args.config))
    DataRequest(data=args.calibration, **arguments.options_for(args, DataRequest)).check_named()
    with working(args, tensorflow=not is_lite(args.model)) as listener:
        from autoquant import api

        saved = api.quantize(config=args.config, to=args.to, simulation=args.simulation, listener=listener, **options)
    say("\n".join([written_with_front(saved), *(f"note    {note}" for note in saved.notes)]))
    return 0
