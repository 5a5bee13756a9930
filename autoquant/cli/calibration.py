"""`autoquant calibration`: a frozen .pb and calibration data become an INT8 model, as with AMCT's command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoquant.cli import arguments
from autoquant.cli.export import written
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.errors import DataError, UsageError
from autoquant.model.model import check_file
from autoquant.tuning.events import reporter

DATA = ("input_shape", "data_dir", "data_types")


def add_arguments(parser: arguments.Parser) -> None:
    """The model, and raw data or an evaluator, spelled as in AMCT."""
    add_saving(parser, help="a frozen .pb", files="P_quantized.pb, P_quant.json, P_config.json, P_record.txt")
    data = parser.add_argument_group("calibration data, raw, or by an evaluator")
    data.add_argument("--input_shape", metavar="S", help='name and shape of each input: "input:32,224,224,3;b:32,4"')
    data.add_argument("--data_dir", metavar="D", help='a folder of .bin files for each, one a batch: "data/a;data/b"')
    data.add_argument(
        "--data_types", "--data_type", metavar="T", dest="data_types", help='of the numbers: "float32;float32"'
    )
    data.add_argument(
        "--evaluator", metavar="FILE", help="a .py with one instance that has calibration(graph, outputs)"
    )
    group = parser.add_argument_group("settings")
    group.add_argument("--calibration_config", metavar="FILE", help="a simplified configuration, .cfg")
    group.add_argument(
        "--batch_num", metavar="N", type=int, help="batches to calibrate (default: all .bin files; 1 with an evaluator)"
    )
    arguments.add_simulation(parser)
    arguments.add_verbose(parser)


def add_saving(parser: arguments.Parser, *, help: str, files: str) -> None:  # noqa: A002  # as argparse calls it
    """The model, its outputs, and where the INT8 model goes."""
    parser.add_argument("--model", metavar="FILE", required=True, help=help)
    parser.add_argument("--outputs", metavar="O", required=True, help='names of its outputs: "softmax:0;boxes:0"')
    parser.add_argument("--save_path", metavar="P", required=True, help=f"a prefix: {files}")
    arguments.add_feed(parser)
    arguments.add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate, and print where the files are."""
    given = [name for name in DATA if name in args]
    if "evaluator" in args and given:
        what = f"excludes --{', --'.join(given)}"
        raise UsageError("--evaluator", what, hint="give the evaluator, or the data, not both")
    missing = [name for name in DATA if name not in args]
    if "evaluator" not in args and missing:
        what = "is missing" if len(missing) == 1 else "are missing"
        hint = "give all three, or an --evaluator"
        raise UsageError(f"--{', --'.join(missing)}", what, hint=hint)
    check_file(args.model)
    with working(args) as listener:
        reporter(listener, "calibration")
        saved = _calibrated(args)
    say(written(saved))
    return 0


def _calibrated(args: argparse.Namespace) -> Any:
    from autoquant.amct.from_file import calibrate_file, open_evaluator
    from autoquant.amct.graph_evaluator import GraphEvaluator
    from autoquant.formats.calibration_cfg import load_cfg

    evaluator: Any
    if "evaluator" in args:
        evaluator, batches = open_evaluator(Path(args.evaluator)), None
    else:
        evaluator = GraphEvaluator(args.data_dir, args.input_shape, args.data_types)
        batches = evaluator.batch_num
    config = getattr(args, "calibration_config", None)
    wanted = getattr(args, "batch_num", None)
    if config is not None:
        of_config = load_cfg(Path(config)).batch_num
        if wanted not in (None, of_config):
            what = f"is {wanted}, but {config} says {of_config}"
            raise UsageError("--batch_num", what, hint="give it in one of the two")
        wanted = of_config
    batch_num = wanted if wanted is not None else batches or 1
    if batches is not None and batch_num > batches:
        what = f"holds {batches} files, but batch_num is {batch_num}"
        raise DataError(args.data_dir, what, hint="give more files, or a smaller batch_num")
    return calibrate_file(
        args.model,
        args.outputs,
        args.save_path,
        evaluator,
        batch_num=batch_num,
        calibration_config=config,
        simulation=args.simulation,
        feed=getattr(args, "feed", ()),
        trust_model="trust_model" in args,
    )
