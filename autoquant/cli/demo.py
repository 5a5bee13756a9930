"""`autoquant demo`: a small network that plain INT8 ruins, and a search that repairs it."""

from __future__ import annotations

import argparse
import itertools
import shlex
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.demo_network import DemoFiles, make_demo
from autoquant.cli.output import note
from autoquant.cli.process import prepared
from autoquant.cli.summary import show_result
from autoquant.files import writing
from autoquant.reports.words import number
from autoquant.tuning.events import Progress
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.choices import check_target
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import Trial

FOLDER = "autoquant-demo"
SPACE = "demo"
TOLERANCE = "2%"
TRIALS = 20
INTRODUCTION = """\
Trains a small network on handwritten digits (10 to 20 seconds), tries plain
INT8 on it, and searches for settings that lose at most 2% of its accuracy."""


def add_arguments(parser: arguments.Parser) -> None:
    """The target, the folder, and the screen."""
    parser.epilog = arguments.EXIT_CODES
    what = f"the folder of the run; model and data go to DIR-files (default: all into {FOLDER})"
    arguments.add(parser, {"--run DIR": what}, default=None, run=Path)
    arguments.add_target(parser, profile=False)
    arguments.add_screen(parser)


def run(args: argparse.Namespace) -> int:
    """Train, search, and suggest what to do next."""
    target = {"target": args.target} if "target" in args else {}
    check_target("", **target)
    files_folder = unused(Path(f"{args.run}-files" if args.run else FOLDER))
    run_folder = args.run or files_folder / "run"
    RunFolder(run_folder).refuse_existing()
    if not args.quiet:
        note(INTRODUCTION)
    with prepared(args, "") as listener:
        from autoquant import api

        listener(Progress("training", 0, 0))
        with writing(files_folder):
            files = make_demo(files_folder)
        result = api.search(
            files.model,
            files.evaluation,
            calibration=files.calibration,
            tolerance=TOLERANCE,
            space=SPACE,
            max_trials=TRIALS,
            run=run_folder,
            listener=listener,
            **target,
        )
    return show_result(result, args, before=lesson(result), after=commands(files, **target))


def unused(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that is not there yet, or empty."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    paths = itertools.chain([folder], numbered)
    return next(path for path in paths if not path.exists() or (path.is_dir() and not any(path.iterdir())))


def lesson(result: SearchResult) -> list[tuple[str, str]]:
    """The scores of FP32, of plain INT8, and of what the search found."""
    tried = [("plain INT8", trial) for trial in result.trials[:1]]
    found = [("found", result.best)] if result.best else []
    scores = [f"{_score(trial, result.baseline)}  {what} ({trial.why})" for what, trial in [*tried, *found]]
    return list(zip(("demo", "", ""), [f"{number(result.baseline)}  FP32", *scores], strict=False))


def _score(trial: Trial, baseline: float) -> str:
    if trial.score is not None:
        return number(trial.score)
    return "failed" if trial.low is None else f"below {number(baseline - trial.low)}"


def commands(files: DemoFiles, target: str = "") -> list[tuple[str, str]]:
    """Commands to go on with, for the same target."""
    model, evaluation, calibration = (
        shlex.quote(str(path)) for path in (files.model, files.evaluation, files.calibration)
    )
    option = f" --target {target}" if target else ""
    return [
        ("", f"autoquant inspect {model}{option}"),
        ("", f"autoquant search {model} --data {evaluation} --calibration {calibration} --tolerance 0.5%{option}"),
    ]
