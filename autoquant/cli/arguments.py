"""What commands have in common: the parser, option groups, and how values of options are read.

Options that the user leaves out are not in the namespace, so that every default is in one place, the request.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, NoReturn

from autoquant.errors import UsageError
from autoquant.options import image_size, names, seconds

EXIT_CODES = """\
exit codes:
  0    the tolerance is certified, or met with --certify none
  1    it is not met; the best model found is saved, unless the time was over before any
  2    bad input: nothing was searched, or what was found so far is saved
  3    it is met on the search samples, but not certified
  4    the FP32 model is worse than --min-baseline: nothing was searched
  70   internal error, a bug in autoquant
  75   the --storage was away for too long; `autoquant resume RUN` goes on
  130  interrupted (Ctrl-C, SIGTERM); `autoquant resume RUN` goes on"""


STORAGE, STUDY = "AUTOQUANT_STORAGE", "AUTOQUANT_STUDY"
"""Variables of the environment that say what --storage and --study do."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are ours, and which takes no abbreviations: scripts outlive them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(self.prog.rpartition(" ")[2], message, hint=f"see `{self.prog} --help`")


def add(
    group: Any,
    options: Mapping[str, str],
    *,
    required: Collection[str] = (),
    default: Any = argparse.SUPPRESS,
    **kinds: Callable[[str], Any],
) -> None:
    """Add options to a parser or group: `--name METAVAR`, or `--name` alone for a switch, each with its help.

    `kinds` read the values of those that are not text.
    """
    for words, text in options.items():
        name, _, metavar = words.partition(" ")
        if metavar:
            kind = kinds.get(name.strip("-").replace("-", "_"))
            needed = name in required
            group.add_argument(name, metavar=metavar, type=kind, required=needed, default=default, help=text)
        else:
            group.add_argument(name, action="store_true", default=default, help=text)


def add_model(parser: Parser, *, needed: bool = True) -> None:
    """MODEL, which may be left out where it is not `needed`, its inputs, outputs and signature."""
    what = "a frozen .pb, a SavedModel folder, a .keras, .h5 or .tflite file"
    parser.add_argument("model", metavar="MODEL", nargs=None if needed else "?", help=what)
    add_opening(parser)


def add_opening(parser: Parser) -> None:
    """Inputs, outputs and signature of a model, and what else opens it."""
    options = {
        "--inputs A,B": "names of inputs, where the file does not say",
        "--outputs A,B": "names of outputs, where the file does not say",
        "--signature KEY": "which of several signatures of a SavedModel or .tflite",
    }
    group = parser.add_argument_group("model")
    add(group, options, inputs=names, outputs=names)
    add_feed(group)
    add_trust(group)


def add_trust(group: Any) -> None:
    """The option for models that may do more than compute."""
    what = "open a model that reads or writes files, calls Python, or runs operators when it is loaded"
    add(group, {"--trust-model": what})


def add_feed(group: Any) -> None:
    """Values of placeholders that are no data."""
    what = "a value for a placeholder that is no data: is_training=false, keep_prob=1.0; can be repeated"
    group.add_argument("--feed", metavar="NAME=VALUE", action="append", help=what)


def add_target(parser: Parser, *, io: bool = False, profile: bool = True) -> Any:
    """Where the INT8 model is to run, with `io` the type of its inputs and outputs; returns the group, for more."""
    from autoquant.targets.table import TARGETS
    from autoquant.tuning.study.choices import IO_TYPES
    from autoquant.tuning.study.request import SearchRequest

    target = f"where the INT8 model is to run: {' or '.join(TARGETS)} (default {SearchRequest.target})"
    types = f"inputs and outputs of the INT8 .tflite: {' or '.join(IO_TYPES)} (default {SearchRequest.io})"
    group = parser.add_argument_group("target")
    add(group, {"--target T": target, **({"--io TYPE": types} if io else {})})
    if profile:
        add_profile(group)
    return group


def add_profile(group: Any) -> None:
    """The device that a .tflite is for."""
    from autoquant.targets.profiles.table import PROFILES

    what = "the device that the .tflite of target litert must suit, as far as its documentation tells: "
    add(group, {"--profile NAME": f"{what}{', '.join(PROFILES)}; see `autoquant guide profiles` (default: none)"})
    add(group, {"--integer-only": "no operator of the .tflite in float, but for inputs and outputs (target litert)"})


def add_reading(parser: Parser, *, labels: bool) -> None:
    """How data is read and preprocessed."""
    from autoquant.tuning.study.model_request import DataRequest

    options = {
        "--preprocess P": "as the model was trained: tf (x/127.5 - 1), torch, caffe (as Keras names them), "
        "or module:function",
        "--scale S": "(x*S - M)/D: a number, a fraction (1/255), or one a channel",
        "--mean M": "likewise: --mean 0.485,0.456,0.406",
        "--std D": "likewise",
        **({"--label-offset N": "added to every label (for example 1 or -1)"} if labels else {}),
        "--image-size H,W": "images are resized to this",
        "--batch-size N": f"samples at a time (default {DataRequest.batch_size})",
    }
    group = parser.add_argument_group("how the data is read")
    add(group, options, label_offset=int, image_size=image_size, batch_size=int)


def add_certify(group: Any, *, otherwise: str) -> None:
    """The data that the best model is certified on; `otherwise` is the default in words."""
    what = "the holdout: data that the search does not see and the best model is scored on, once; none for no "
    add(group, {"--certify DATA": f"{what}certificate (default: {otherwise})"})


def add_places(parser: Parser, *, storage: bool = False) -> None:
    """Where the model and the data of a run are, if they were moved; or the `storage` of its study."""
    options = {
        "--model MODEL": "where the model is now, if it was moved: the same file",
        "--data DATA": "likewise the evaluation data",
        "--calibration DATA": "likewise the calibration data",
        "--metric M": "likewise the file of a metric of your own",
    }
    if storage:
        options["--storage URL"] = "likewise the database of a search that was started with one"
    add(parser.add_argument_group("what was moved"), options)


def add_budget(parser: Parser, *, trials: str, timeout: str) -> None:
    """When a search ends; `trials` and `timeout` are the defaults in words."""
    options = {
        "--max-trials N": f"trials in all (default: {trials})",
        "--timeout T": f"such as 90, 90s, 30m, 2h, 1h30m (default: {timeout})",
        "--trial-timeout T": "likewise for one trial, which has failed then (default: none)",
        "--isolate": "run trials in a process of their own: one that crashes, or runs out of memory, costs that trial",
        "--stop-on-target": "end at the first trial within tolerance",
    }
    add(parser.add_argument_group("budget"), options, max_trials=int, timeout=seconds, trial_timeout=seconds)


def add_groups(group: Any, *, confidence: str, units: str) -> None:
    """The `confidence` of what is claimed; guarded groups, and `units` of samples that belong together."""
    from autoquant.evaluation.statistics.tolerance import Tolerance
    from autoquant.tuning.study.score_request import ScoreRequest

    options = {
        "--confidence P": f"{confidence} (default {ScoreRequest.confidence})",
        "--unit NAME": "what says which samples belong together (the patient of an image, the recording of a window): "
        "an array of the .npz or of a function's batches, a feature of TFRecords, or a regular expression of the paths "
        f"of images ('([^/]+)_': all before the last _); {units}",
        "--guard G": "a tolerance for every group as well: class, or what names groups, as --unit does",
        "--guard-tolerance T": "the tolerance of a group: 0.05 (absolute) or 5%% (of the FP32 score) "
        "(default: --tolerance)",
    }
    add(group, options, confidence=float, guard_tolerance=Tolerance.parse)


def add_unwatched(parser: Parser) -> None:
    """What jobs that nobody watches are told, and decide by."""
    options = {
        "--junit FILE": "write the verdict, guarded groups and gates as test cases of JUnit XML",
        "--min-baseline X": "end after the baseline, with exit code 4, where FP32 scores worse than this",
        "--min-speedup R": "ship the float model unless INT8 is R times as fast here, in three of four rounds (target "
        "litert)",
    }
    add(parser.add_argument_group("jobs that nobody watches"), options, min_baseline=float, min_speedup=float)


def add_jobs(group: Any, *, otherwise: str) -> None:
    """How many processes of this machine carry trials out."""
    what = "carry trials out in so many processes of this machine; 0 leaves them to `autoquant worker`"
    add(group, {"--jobs N": f"{what} (default {otherwise})"}, jobs=int)


def add_storage(group: Any) -> None:
    """The database in which a search and its workers meet, and what it is called there."""
    url = "the database where workers of other machines find the search, postgresql+psycopg://USER@HOST/DATABASE"
    options = {
        "--storage URL": f"{url} or mysql+pymysql://... (default ${STORAGE})",
        "--study NAME": f"what the search is called there (default ${STUDY}, or the name of the run's folder)",
    }
    add(group, options)


def with_environment(options: dict[str, Any]) -> dict[str, Any]:
    """Storage and study by the environment, where they are not among the options."""
    for name, variable in (("storage", STORAGE), ("study", STUDY)):
        if name not in options and os.environ.get(variable) and (name == "storage" or options.get("storage")):
            options = {**options, name: os.environ[variable]}
    return options


def add_keep_models(group: Any) -> None:
    """Which models stay on disk."""
    what = "which INT8 models stay on disk: best, all, or so many, of the best trial and others of the Pareto front "
    add(group, {"--keep-models K": f"{what}(drop against share in INT8)"}, keep_models=keep_models)


def add_samples(group: Any, *, default: str) -> None:
    """How many pictures of samples are in report.html."""
    what = "show so many images that FP32 had right and INT8 wrong in report.html; 0 keeps none of the data "
    add(group, {"--samples N": f"{what}(default {default})"}, samples=int)


def add_screen(parser: Parser) -> None:
    """The screen: progress goes to standard error, the result to standard output."""
    group = parser.add_argument_group("screen")
    add(group, {"--plain": "one line per event, as without a terminal"}, default=False)
    add(group, {"--json": "print the result as one JSON object"}, default=False)
    only = group.add_mutually_exclusive_group()
    add(only, {"--quiet": "print the verdict and the model, or errors"}, default=False)
    add_verbose(only)


def add_simulation(parser: Parser) -> None:
    """Whether the model that is written runs in stock TensorFlow."""
    parser.add_argument(
        "--without-simulation",
        dest="simulation",
        action="store_false",
        default=True,
        help="leave out the functions that let the model run in stock TensorFlow, for converters that refuse them",
    )


def add_json(parser: Parser) -> None:
    """--json of commands that print tables, and --verbose."""
    add(parser, {"--json": "print one JSON object instead of tables"}, default=False)
    add_verbose(parser)


def add_verbose(group: Any) -> None:
    """--verbose, which every command has."""
    add(group, {"--verbose": "more lines, TensorFlow's own too; tracebacks"}, default=False)


def options_for(args: argparse.Namespace, request: type) -> dict[str, Any]:
    """The options that are fields of a request and not left to their defaults."""
    known = {entry.name for entry in fields(request)}
    return {name: value for name, value in vars(args).items() if name in known}


def keep_models(text: str) -> int | str:
    """Read which models to keep: 'best', which is 1, 'all', or a number. Raises UsageError.

    >>> keep_models("best"), keep_models("all"), keep_models("5")
    (1, 'all', 5)
    """
    if text in ("best", "all"):
        return 1 if text == "best" else text
    if not text.isdecimal():
        raise UsageError("--keep-models", f"cannot read '{text}'", hint="give best, all, or how many, for example 5")
    return int(text)


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that are fields of a SearchRequest."""
    from autoquant.tuning.study.request import SearchRequest

    options = options_for(args, SearchRequest)
    if options.get("keep_models") == "all":
        options = {**options, "keep_models": 1, "keep_all_models": True}
    return options


def space(text: str) -> str:
    """Check a search space, before the seconds that TensorFlow takes. Raises SpaceError."""
    from autoquant.formats.space_toml import load_space

    load_space(text)
    return text
