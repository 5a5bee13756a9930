"""`autoquant explain`: the best plan of a run and its cost, the effect of settings, why layers are in float."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.effects import (
    MOST,
    drop_words,
    float_layers_table,
    interval_words,
    legend,
    plan_words,
    settings_table,
)
from autoquant.cli.output import Block, labelled, page, say, terminal_columns, wrapped
from autoquant.cli.words import at_most, counted, duration, number, percent
from autoquant.formats.codec import json_text

if TYPE_CHECKING:
    from rich.text import Text

    from autoquant.reports.explanation import Explanation, FloatLayer


def add_arguments(parser: arguments.Parser) -> None:
    """The run."""
    parser.add_argument("run", metavar="RUN", help="the folder of the run, which may be going on")
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read the run, and explain it."""
    from autoquant.reports.explanation import explain_run

    found = explain_run(Path(args.run))
    say(json_text(found.facts()) if args.json else text(found, columns=terminal_columns(sys.stdout)))
    return 0


def text(found: Explanation, *, columns: int | None) -> str:
    """The best plan and its cost, measured effects, and the reasons of its float layers, in so many columns."""
    terms = found.run.terms
    shown = [one.pair for one in found.settings[:MOST]] + [one.pair for one in found.float_fallbacks[:MOST]]
    blocks: list[Block] = [
        labelled(cost(found), columns=columns),
        settings_table(found.settings),
        float_layers_table(found.float_fallbacks, terms.objective_name),
        [*legend(shown)],
        _float_layers(found, columns),
    ]
    return page(blocks, columns=columns)


def cost(found: Explanation) -> Iterator[tuple[str, str]]:
    """The best plan, its cost, and the effort of the trials, as rows with labels."""
    from autoquant.tuning.study.choices import MACS

    run, terms, best = found.run, found.run.terms, found.run.best
    max_drop = f"max drop {number(terms.max_drop)}"
    yield "run", f"{run.run} ({terms.target}): FP32 {terms.metric} {number(terms.baseline)}, {max_drop}"
    if best is None:
        yield "best", f"none, as no trial finished; the last one failed: {run.trials[-1].failure}"
    else:
        met = "within tolerance" if best.meets(terms.max_drop) else "not within tolerance"
        score = "" if best.score is None else f"{terms.metric} {number(best.score)}, "
        yield "best", f"trial {best.number} ({best.why}): {score}drop {drop_words(best)}, {met}"
        yield from _certificate(found)
        minimized = f"; {terms.objective_name} {percent(best.objective)} of the float model's"
        share = f"{best.int8_layers} of {best.layers} layers, {percent(best.int8_share)} of the model's work"
        yield "INT8", share + ("" if terms.objective_name == MACS else minimized)
        yield "settings", plan_words(best.plan)
    yield "effort", _effort(found)


def _certificate(found: Explanation) -> Iterator[tuple[str, str]]:
    claim = found.run.certificate
    if claim is None:
        return
    bound = f"{at_most(claim.upper_bound)} with {percent(claim.confidence)} confidence"
    samples = counted(claim.samples, "sample")
    yield "holdout", f"{claim.verdict}: drop {number(claim.drop)} on {samples}, {bound}"


def _effort(found: Explanation) -> str:
    run = found.run
    states = [trial.state.value for trial in run.trials]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    unended = f", {run.unended} unfinished" if run.unended else ""
    parts = ", ".join(f"{part} {duration(spent)}" for part, spent in run.seconds.items())
    trials, samples = counted(len(run.trials), "trial"), counted(run.samples, "sample")
    return f"{trials} ({ended}{unended}), {samples} evaluated; {parts or 'no times'}"


def _float_layers(found: Explanation, columns: int | None) -> list[Text]:
    from rich.text import Text

    return [Text(wrapped(line, columns), "" if number else "bold") for number, line in enumerate(reasons(found))]


def reasons(found: Explanation) -> Iterator[str]:
    """Why layers are in float; those of one reason together, the reason indented below their names."""

    def shown_by(one: FloatLayer) -> tuple[str, int]:
        return one.reason.value, -1 if one.trial is None else one.trial.number

    if found.float_layers:
        verb = "is" if len(found.float_layers) == 1 else "are"
        yield f"why {counted(len(found.float_layers), 'layer')} of the best plan {verb} in float"
    groups = [list(group) for _, group in groupby(sorted(found.float_layers, key=shown_by), key=shown_by)]
    for group in groups[:MOST]:
        yield f"  {', '.join(one.name for one in group)}"
        yield f"    {_reason(group, found)}"
    left = sum(map(len, groups[MOST:]))
    if left:
        yield f"  ... and {counted(left, 'more layer')}, which --json lists"


def _reason(group: Sequence[FloatLayer], found: Explanation) -> str:
    from autoquant.reports.explanation import Reason

    one, run = group[0], found.run
    if one.trial is None:
        beside = "" if one.reason is Reason.NEVER else " beside most of these INT8 layers and with a verdict"
        return f"no trial had {_them(group)} in INT8{beside}"
    if one.reason is Reason.FAILED:
        return f"trial {one.trial.number} failed because of it: {one.trial.failure}"
    interval = "" if one.trial.score is not None else interval_words(one.trial.low, one.trial.high)
    drop = f"trial {one.trial.number}, {_difference(group)}: drop {drop_words(one.trial)}{interval}"
    if one.reason is Reason.NOT_WITHIN:
        return f"{drop}, {'screened out' if one.trial.undecided else 'not within tolerance'}"
    best = run.best.objective if run.best else one.trial.objective
    share = f"{percent(one.trial.objective)} of the float model's, not {percent(best)}"
    return f"{drop}, within tolerance; but {run.terms.objective_name} {share}"


def _difference(group: Sequence[FloatLayer]) -> str:
    """How the trial behind a reason differs from the best plan."""
    one = group[0]
    if one.isolated:
        return "which has it in INT8 and is otherwise the same"
    more = len(one.int8_only_in_trial) + 1 - len(group)
    words = [
        f"with {_them(group)}" + (f" and {counted(more, 'more layer')}" if more else "") + " in INT8",
        *([f"without {len(one.int8_only_in_best)} of these"] if one.int8_only_in_best else []),
        *([] if one.same_settings else ["with other settings"]),
    ]
    return ", ".join(words)


def _them(group: Sequence[FloatLayer]) -> str:
    return "it" if len(group) == 1 else "them"
