"""`autoquant export`: copy a plan, its record and its model out of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.errors import MET, MISSED
from autoquant.model.model import is_lite
from autoquant.reports.words import number
from autoquant.tuning.study.request import MOVABLE, TRUST_MODEL
from autoquant.tuning.study.run_folder import RunFolder

if TYPE_CHECKING:
    from autoquant.amct.from_file import CalibratedModel
    from autoquant.tuning.export import Export


def add_arguments(parser: arguments.Parser) -> None:
    """The run and the folder."""
    parser.add_argument("run", metavar="RUN", help="the folder of the run")
    options = {
        "--to DIR": "where config.json, record.txt and the model go",
        "--trial N": "another trial than the best",
        "--target T": "build the same plan for the other target, litert or tensorflow, and score it there; exit code 1 "
        "where it is not within the run's tolerance (default: the target of the run)",
        "--io TYPE": "type of a .tflite's inputs and outputs: float32, int8 (default: as in the run)",
        "--profile NAME": "build the same plan for a device (`autoquant guide profiles`), as far as that can have it, "
        "and score it; exit code as of --target (default: as in the run, for its target)",
        "--integer-only": "build it without operators in float, and score it; exit code as of --target",
    }
    arguments.add(parser, options, required=("--to",), default=None, trial=int)
    arguments.add_trust(parser)
    arguments.add_places(parser)
    arguments.add_simulation(parser)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Export, and print where the files are."""
    folder = RunFolder(Path(args.run))
    folder.require_run()
    model = getattr(args, "model", folder.read_request()["request"]["model"])
    with working(args, tensorflow=not is_lite(model)) as listener:
        from autoquant import api

        options = {
            name: getattr(args, name) for name in ("trial", "target", "io", "profile", "integer_only", "simulation")
        }
        options |= {name: getattr(args, name) for name in (*MOVABLE, TRUST_MODEL) if name in args}
        saved = api.export(args.run, args.to, listener=listener, **options)
    notes = [f"note    {note}" for note in saved.notes]
    trial = "none" if saved.trial is None else str(saved.trial)
    say("\n".join([f"trial   {trial}", written_with_front(saved), *scores(saved), *notes]))
    elsewhere = any(one is not None for one in (args.target, args.io, args.profile, args.integer_only))
    return MISSED if elsewhere and saved.transferred is not None and not saved.transferred.met else MET


def scores(saved: Export) -> list[str]:
    """The score of a plan on another target, beside its score in the run."""
    found = saved.transferred
    if found is None:
        return []
    verdict = "within" if found.met else "not within"
    here = f"{found.metric} {number(found.score)} ({found.engine}; FP32 {number(found.baseline)}"
    lines = [f"score   {here}, drop {number(found.drop)}: {verdict} the run's tolerance)"]
    if saved.score is not None:
        lines.append(f"run     {found.metric} {number(saved.score)} ({saved.engine})")
    return [*lines, *(f"changed {change}" for change in found.changes)]


def written(saved: Export | CalibratedModel) -> str:
    """The files that were written, a line each."""
    lines = [f"config  {saved.config}", f"record  {saved.record}", f"model   {saved.model}"]
    return "\n".join(lines if saved.mapping is None else [*lines, f"mapping {saved.mapping}"])


def written_with_front(saved: Export) -> str:
    """The same, and what computes inputs of the model, where that is in a file of its own."""
    return written(saved) if saved.front is None else f"{written(saved)}\nfront   {saved.front}"
