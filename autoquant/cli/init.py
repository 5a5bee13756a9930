"""`autoquant init`: write a file of options for `autoquant search --config`, after a look at model and data."""

from __future__ import annotations

import argparse
import math
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoquant import __version__
from autoquant.cli import arguments
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.errors import UsageError
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.files import write_text, writing
from autoquant.messages import printable
from autoquant.model.model import check_file, is_lite
from autoquant.reports.words import counted, macs, number, percent
from autoquant.tuning.study.choices import LITERT, check_target, likely_target
from autoquant.tuning.study.model_request import DataRequest
from autoquant.tuning.study.places import FUNCTIONS, PATHS, for_folder
from autoquant.tuning.study.request import TRUST_MODEL, SearchRequest
from autoquant.tuning.study.run_toml import toml_value
from autoquant.tuning.study.trial import count_layers
from autoquant.tuning.study.workload import MULTIPLY_ADDS

if TYPE_CHECKING:
    from autoquant.tuning.proposal import Proposal

DEFAULT_FILE = "run.toml"
TOLERANCE = Tolerance(0.01, relative=True)
OTHERS = tuple(Tolerance(percentage / 100, relative=True) for percentage in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50))
"""Tolerances of which the smallest that can be certified is named."""
WIDTH = 100


def add_arguments(parser: arguments.Parser) -> None:
    """The model, the data, and the file."""
    arguments.add_model(parser)
    arguments.add_target(parser, io=True)
    options = {
        "--data DATA": "evaluation data, as of `autoquant search`",
        "--calibration DATA": "calibration data, likewise (default: split off the evaluation data)",
        "--to FILE": f"the file to write, which must not exist (default {DEFAULT_FILE})",
    }
    arguments.add(parser.add_argument_group("data and file"), options, required=("--data",), to=Path)
    arguments.add_reading(parser, labels=True)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Look, write the file, and say how to go on."""
    file: Path = getattr(args, "to", Path(DEFAULT_FILE))
    if file.exists():
        raise UsageError(str(file), "exists already", hint="name another file with --to, or remove this one")
    options = arguments.options_for(args, SearchRequest)
    asked = {name: options[name] for name in ("io", "profile", "integer_only") if name in options}
    likely = LITERT if options.keys() & {"profile", "integer_only"} else likely_target(args.model)
    check_target(args.model, target=options.get("target", likely), **asked)
    check_file(args.model)
    DataRequest(**arguments.options_for(args, DataRequest)).check_named()
    with working(args, tensorflow=not is_lite(args.model)) as listener:
        from autoquant.tuning.proposal import propose

        text = config_text(propose(options, listener), options, file.parent)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    trusted = " --trust-model" if TRUST_MODEL in options else ""
    say(f"wrote {file}: read it, then\n\nautoquant search --config {shlex.quote(str(file))}{trusted}")
    return 0


def config_text(found: Proposal, given: dict[str, Any], folder: Path) -> str:
    """The file: every option with what was seen that speaks for it; `given` are those of the command line."""
    request = found.inputs.request
    values: dict[str, Any] = {
        **{name: value for name, value in given.items() if name != TRUST_MODEL},
        **found.reading,
        "target": request.target,
        "metric": found.metric.name,
        "tolerance": str(_tolerance(found)),
        "max_trials": request.max_trials,
        "seed": request.seed,
    }
    comments = {
        "model": _about_model(found),
        "data": _about_data(found),
        "calibration": _about_calibration(found),
        "target": _about_target(found),
        "metric": _about_metric(found),
        "tolerance": _about_tolerance(found),
        "max_trials": [
            "The search ends after so many trials at the latest. Uncomment the next line to limit its time."
        ],
        "seed": ["The same seed gives the same trials."],
    }
    reading = [name for name in ("preprocess", "scale", "mean", "std") if name in values]
    comments[reading[0] if reading else "preprocess"] = _about_reading(found)
    fronts = [name for name in ("inputs", "outputs", "signature", "feed") if name in values]
    others = [name for name in values if name not in comments and name not in (*reading, *fronts)]
    lines = [
        *_comment(
            [
                f"Options for `autoquant search --config`, written by autoquant {__version__} after a look at the",
                f"model and {found.samples:,} samples. `autoquant search --help` names all options;",
                "here they have _ for -. Relative paths are relative to this file.",
            ]
        ),
        "",
        "[request]",
    ]
    unset = {"calibration": '# calibration = "calibration.npz"', "preprocess": '# preprocess = "tf"'}
    order = ("model", *fronts, "target", "data", "calibration", *(reading or ("preprocess",)), *others)
    for name in (*order, "metric", "tolerance", "max_trials", "seed"):
        lines += _comment(comments.get(name, []))
        lines.append(f"{name} = {_value(name, values[name], folder)}" if name in values else unset[name])
        lines += ['# timeout = "2h"'] if name == "max_trials" else []
    return "\n".join(lines) + "\n"


def _value(name: str, value: Any, folder: Path) -> str:
    if isinstance(value, str) and name in PATHS | FUNCTIONS:
        value = for_folder(name, value, folder)
    return toml_value(list(value) if isinstance(value, tuple) else value)


def _comment(sentences: list[str]) -> Iterator[str]:
    """Sentences as a paragraph of comments: names in them are printable, and in one line."""
    text = printable(" ".join(" ".join(sentences).split()))
    yield from textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _about_model(found: Proposal) -> list[str]:
    from autoquant.cli.interface import interface_facts, shape_words

    facts = interface_facts(found.inputs.source)

    def listed(kind: str) -> str:
        return ", ".join(f"{one['name']} ({one['dtype']} {shape_words(one['shape'])})" for one in facts[kind])

    work = found.inputs.workload
    cost = ""
    if work.unit == MULTIPLY_ADDS:
        cost = f", which hold {percent(1 - work.float_cost / work.cost)} of its {macs(work.cost)} multiply-adds"
    return [
        f"It takes {listed('inputs')} and gives {listed('outputs')}. "
        f"{counted(count_layers(work.layers), 'layer')} can be INT8{cost}; `autoquant inspect` lists them.",
        *found.inputs.source.notes,
    ]


def _about_target(found: Proposal) -> list[str]:
    saved = {"tensorflow": "a .pb for Ascend and TensorFlow", "litert": "a .tflite for LiteRT"}
    target = found.inputs.request.target
    refused = [f"Not for {name}: {why}." for name, why in found.refused.items()]
    return [f"The INT8 model will be {saved.get(target, f'for {target}')}.", *refused]


def _about_data(found: Proposal) -> list[str]:
    splits = found.inputs.splits
    labels = "no labels"
    if found.labels is not None:
        labels = f"labels ({found.labels.dtype.name}, of shape {('batch', *found.labels.shape[1:])})".replace("'", "")
    values = "" if math.isnan(found.low) else f" Values go from {found.low:g} to {found.high:g}."
    return [f"{counted(len(splits.evaluation), 'sample')} to evaluate on, with {labels}.{values}"]


def _about_calibration(found: Proposal) -> list[str]:
    inputs, space = found.inputs, found.inputs.space_file
    taken = min(len(inputs.splits.calibration), max(space.whole["batch_num"]) * inputs.request.batch_size)
    many = counted(len(inputs.splits.calibration), "sample")
    if inputs.request.calibration is None:
        first = f"{many} more of the same file are split off for calibration, by the seed."
    else:
        first = f"There are {many}."
    return [f"{first} Ranges are found on {taken:,} of them at most."]


def _about_reading(found: Proposal) -> list[str]:
    if found.reading and found.score is not None:
        name = found.metric.name
        plain = "cannot be scored" if found.plain is None else f"has {name} {number(found.plain.value)}"
        best = f"with this the FP32 model has {name} {number(found.score.value)}, with the data as they are it {plain}"
        return [f"Guessed by the score: {best}. Check how the model was trained."]
    if found.inputs.request.preprocess or any(
        value is not None for value in (found.inputs.request.scale, found.inputs.request.mean, found.inputs.request.std)
    ):
        return ["As given."]
    return ["The data go into the model as they are. Where it was trained on other values, say how they are made:"]


def _about_metric(found: Proposal) -> list[str]:
    name = found.metric.name
    if found.score is None:
        return [f"The FP32 model has no {name} on these samples: the search will say why."]
    words = f"FP32 has {number(found.score.value)} on the {found.samples:,} samples that were looked at."
    if not found.metric.needs_labels:
        why = "there are no labels" if found.labels is None else "no built-in metric takes these outputs and labels"
        return [f"Compares with the outputs of FP32, as {why}. {words}"]
    return [f"Fits outputs and labels. {words}"]


def _tolerance(found: Proposal) -> Tolerance:
    """A share of the FP32 score, where it has one."""
    return TOLERANCE if found.score is not None and found.score.value else Tolerance(TOLERANCE.value)


def _about_tolerance(found: Proposal) -> list[str]:
    """What can be certified with half of the samples."""
    told = "How much worse than FP32 the INT8 model may be, here as a share of its score; 0.005 is absolute."
    if not _tolerance(found).relative or found.score is None:
        return ["How much worse than FP32 the INT8 model may be, in units of the metric."]
    holdout = len(found.inputs.splits.evaluation) // 2
    if _least(found, TOLERANCE) <= holdout:
        return [told, f"It can be certified with half of the samples, {holdout:,}, if INT8 changes few of them."]
    others = [str(one) for one in OTHERS if _least(found, one) <= holdout]
    best = f"; with these, {others[0]} can be" if others else ""
    why = f"half of the samples are {holdout:,}, and to certify {TOLERANCE} takes {_least(found, TOLERANCE):,.0f}"
    return [told, f"It cannot be certified: {why}{best}. The search ends with exit code 3 at best."]


def _least(found: Proposal, tolerance: Tolerance) -> float:
    """The fewest samples that certify a tolerance."""
    from autoquant.tuning.certification.holdout import least_certifiable

    assert found.score is not None
    drop = tolerance.absolute(found.score.value)
    least = least_certifiable(found.metric, found.score.rows, max_drop=drop, confidence=SearchRequest.confidence)
    return math.inf if least is None else least
