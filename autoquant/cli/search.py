"""`autoquant search`: find the INT8 model that keeps the tolerance."""

from __future__ import annotations

import argparse

from autoquant.cli import arguments
from autoquant.cli.screen import listening, prepared, show_result


def add_arguments(parser: arguments.Parser) -> None:
    """All options of a search."""
    from autoquant.formats.space_toml import DEFAULT, presets
    from autoquant.tuning.study.choices import ENGINE_NAMES, SAMPLERS
    from autoquant.tuning.study.request import SearchRequest

    parser.epilog = arguments.EXIT_CODES
    arguments.add_model(parser)
    target = arguments.add_target(parser)
    arguments.add_io(target)
    target.add_argument(
        "--engine",
        metavar="E",
        help=f"what runs the models to score them: {', '.join(ENGINE_NAMES)} (default {SearchRequest.engine}: "
        "LiteRT, where it computes what TensorFlow does)",
    )
    target.add_argument(
        "--objective",
        metavar="O",
        help="what to minimize in float: macs (multiply-adds), bytes (of weights), or latency, measured on this "
        f"machine (default {SearchRequest.objective})",
    )
    group = parser.add_argument_group("data and tolerance")
    data = "an .npz file, a folder of images by class, TFRecords, or module:function"
    group.add_argument("--data", metavar="DATA", required=True, help=f"evaluation data: {data}")
    group.add_argument(
        "--calibration", metavar="DATA", help="calibration data, likewise (default: split off the evaluation data)"
    )
    group.add_argument(
        "--metric",
        metavar="M",
        help="top1, top5, agreement (with the FP32 model; needs no labels), mse, psnr, auc, or module:function "
        f"(default {SearchRequest.metric})",
    )
    group.add_argument(
        "--tolerance",
        metavar="T",
        type=arguments.tolerance,
        required=True,
        help="how much worse than FP32 the score may be: 0.005 (absolute) or 1%% (of the FP32 score)",
    )
    _add_certificate(parser)
    arguments.add_budget(parser, trials=str(SearchRequest.max_trials), timeout="none")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--sampler",
        metavar="S",
        help=f"what chooses the plans: {', '.join(SAMPLERS)} (default {SearchRequest.sampler})",
    )
    group.add_argument(
        "--error-rate",
        metavar="P",
        type=float,
        help="the probability, over the whole run, that a trial is stopped early by mistake "
        f"(default {SearchRequest.error_rate})",
    )
    group.add_argument(
        "--space",
        metavar="S",
        type=arguments.space,
        help=f"the search space: {', '.join(presets())}, or your own TOML file (default: the one called "
        f"like the target, or {DEFAULT})",
    )
    group.add_argument(
        "--seed", metavar="S", type=int, help=f"the same seed gives the same trials (default {SearchRequest.seed})"
    )
    group.add_argument("--run", metavar="DIR", help="the folder to make (default runs/<model>-<date>-<time>)")
    group.add_argument("--keep-models", choices=("best", "all"), help="which INT8 models stay on disk (default best)")
    arguments.add_reading(parser, labels=True)
    arguments.add_screen(parser)


def _add_certificate(parser: arguments.Parser) -> None:
    """How the best model is certified, and on which samples."""
    from autoquant.tuning.study.request import SearchRequest

    group = parser.add_argument_group("certificate")
    arguments.add_certify(group, otherwise="half of the evaluation data, where that can be enough")
    group.add_argument(
        "--confidence",
        metavar="P",
        type=float,
        help=f"the probability with which a certified tolerance holds (default {SearchRequest.confidence})",
    )
    group.add_argument(
        "--guard",
        metavar="G",
        help="a tolerance for every group as well: class, or the name of an array of group numbers in the .npz",
    )
    group.add_argument(
        "--guard-tolerance",
        metavar="T",
        type=arguments.tolerance,
        help="the tolerance of a group: 0.05 (absolute) or 5%% (of the FP32 score) (default: --tolerance)",
    )
    group.add_argument(
        "--allow-overlap",
        action="store_true",
        help="let calibration and search share samples; shared ones are left out of the holdout",
    )


def run(args: argparse.Namespace) -> int:
    """Search, and print the result."""
    from autoquant.tuning.study.request import SearchRequest

    options = arguments.options_for(args, SearchRequest)
    if "keep_models" in args:
        options["keep_all_models"] = args.keep_models == "all"
    request = SearchRequest(**options)  # checked here, before the seconds that TensorFlow takes
    with prepared(args, request.model), listening(args) as listener:
        from autoquant import api

        result = api.run_search(request, run=getattr(args, "run", None), listener=listener)
    return show_result(result, args)
