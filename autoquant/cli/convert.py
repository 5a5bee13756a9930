"""`autoquant convert`: a .pb that was trained with FakeQuant becomes an INT8 model, as with AMCT's command."""

from __future__ import annotations

import argparse

from autoquant.cli import arguments
from autoquant.cli.calibration import add_saving
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.model.model import check_file
from autoquant.tuning.events import reporter


def add_arguments(parser: arguments.Parser) -> None:
    """The model and where the result goes, spelled as in AMCT."""
    add_saving(parser, help="a frozen .pb with FakeQuant operators", files="P_quantized.pb, P_quant.json")
    arguments.add_simulation(parser)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and print where the files are."""
    check_file(args.model)
    with working(args) as listener:
        reporter(listener, "converting")
        from autoquant.amct.qat import convert_qat_model

        saved = convert_qat_model(
            args.model,
            args.outputs,
            args.save_path,
            simulation=args.simulation,
            feed=getattr(args, "feed", ()),
            trust_model="trust_model" in args,
        )
    say(f"model   {saved.model}\nmapping {saved.mapping}")
    return 0
