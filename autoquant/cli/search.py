"""`autoquant search`: find the INT8 model that keeps the tolerance."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.cli import arguments
from autoquant.cli.configuration import configured
from autoquant.cli.dry_run import show_estimate
from autoquant.cli.process import prepared
from autoquant.cli.summary import show_result
from autoquant.errors import UsageError
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.formats.space_toml import DEFAULT, presets
from autoquant.options import size
from autoquant.reports.junit import junit_report
from autoquant.tuning.study.choices import ENGINE_NAMES, SAMPLERS
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder

NEEDED: Mapping[str, str] = MappingProxyType({"model": "MODEL", "data": "--data", "tolerance": "--tolerance"})
"""What has no default, and how it is given."""


def add_arguments(parser: arguments.Parser) -> None:
    """All options of a search."""
    parser.epilog = arguments.EXIT_CODES
    arguments.add_model(parser, needed=False)
    what = (
        "a TOML file with options, such as the run.toml of a run, or one of `autoquant init`; those given here go first"
    )
    arguments.add(parser, {"--config FILE": what}, config=Path)
    options = {
        "--engine E": f"what runs the models to score them: {', '.join(ENGINE_NAMES)} "
        f"(default {SearchRequest.engine}: LiteRT, where it computes what TensorFlow does)",
        "--objective O": "what to minimize in float: macs (multiply-adds), bytes (of weights), or latency, measured "
        f"on this machine (default {SearchRequest.objective})",
    }
    arguments.add(arguments.add_target(parser, io=True), options)
    options = {
        "--data DATA": "evaluation data: an .npz or .csv file, a folder of images by class, TFRecords, or "
        "module:function",
        "--calibration DATA": "calibration data, likewise (default: split off the evaluation data)",
        "--metric M": "top1, top5, miou, mse, psnr, auc; agreement or sqnr, which compare with the FP32 model and need "
        f"no labels; or module:function (default {SearchRequest.metric}); M@output=NAME scores one of several outputs",
        "--tolerance T": "how much worse than FP32 the score may be: 0.005 (absolute) or 1%% (of the FP32 score)",
    }
    group = parser.add_argument_group("data and tolerance")
    arguments.add(group, options, tolerance=Tolerance.parse)
    _add_certificate(parser)
    arguments.add_budget(parser, trials=str(SearchRequest.max_trials), timeout="none")
    options = {
        "--sampler S": f"what chooses the plans: {', '.join(SAMPLERS)} (default {SearchRequest.sampler})",
        "--error-rate P": "the probability, over the whole run, that a trial is stopped early by mistake "
        f"(default {SearchRequest.error_rate})",
        "--space S": f"the search space: {', '.join(presets())}, or your own TOML file (default: the one called "
        f"like the target, or {DEFAULT})",
        "--seed S": f"the same seed gives the same trials (default {SearchRequest.seed})",
        "--cache SIZE": "cache samples of functions, and decoded images, on the disk of the run: up to 500MB, 8GB; "
        "or off (default 8GB, and at most half of what is free)",
        "--run DIR": "the folder to make (default runs/<model>-<date>-<time>)",
    }
    group = parser.add_argument_group("search")
    arguments.add(group, options, error_rate=float, space=arguments.space, seed=int, cache=size)
    arguments.add_keep_models(group)
    arguments.add_samples(group, default=str(SearchRequest.samples))
    _add_workers(parser)
    arguments.add_unwatched(parser)
    what = "open and check everything, try one plan on a few samples, say what time, disk and memory it will take, and "
    arguments.add(parser, {"--dry-run": f"{what}search nothing"}, default=False)
    arguments.add_reading(parser, labels=True)
    arguments.add_screen(parser)


def _add_certificate(parser: arguments.Parser) -> None:
    """How the best model is certified, and on which samples."""
    group = parser.add_argument_group("certificate")
    arguments.add_certify(group, otherwise="half of the evaluation data, where that can be enough")
    confidence, units = "the probability with which a certified tolerance holds", "splits and bounds go by these units"
    arguments.add_groups(group, confidence=confidence, units=units)
    what = "let calibration and search share samples; shared ones are left out of the holdout"
    arguments.add(group, {"--allow-overlap": what})


def _add_workers(parser: arguments.Parser) -> None:
    """Who carries trials out."""
    group = parser.add_argument_group("workers")
    arguments.add_jobs(group, otherwise="1: this one")
    arguments.add_storage(group)
    what = "where workers of other machines leave the files of what may be the best, which is built again otherwise: a "
    arguments.add(group, {"--artifacts DIR": f"{what}directory that all machines have, or s3://bucket/prefix"})


def run(args: argparse.Namespace) -> int:
    """Search, and print the result."""
    options = arguments.with_environment(arguments.search_options(args))
    with junit_report("" if args.dry_run else options.get("junit", ""), "search"):
        request = configured(args.config, options) if "config" in args else _given(options)
    with junit_report("" if args.dry_run else request.junit, f"search {Path(request.model).stem}"):
        request.check_named()  # here, before the seconds that TensorFlow takes
        if "run" in args:
            RunFolder(Path(args.run)).refuse_existing()
    where = getattr(args, "run", None)
    with prepared(args, request.model) as listener:
        if args.dry_run:
            from autoquant.tuning.dry_run import dry_run

            estimate = dry_run(request, where, listener)
        else:
            from autoquant import api

            result = api.run_search(request, run=where, listener=listener)
    return show_estimate(estimate, args) if args.dry_run else show_result(result, args)


def _given(options: Mapping[str, Any]) -> SearchRequest:
    """The request of a command line alone. Raises UsageError."""
    if missing := [word for name, word in NEEDED.items() if name not in options]:
        what = f"the following arguments are required: {', '.join(missing)}"
        raise UsageError("search", what, hint="see `autoquant search --help`, or give a file of options with --config")
    return SearchRequest(**options)
