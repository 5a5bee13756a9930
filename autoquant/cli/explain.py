"""`autoquant explain`: the best plan of a run and its cost, the effect of settings, why layers are in float."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.output import Block, Row, Table, labelled, page, say, terminal_columns, wrapped
from autoquant.errors import listed
from autoquant.formats.codec import json_text
from autoquant.pulse import duration
from autoquant.reports.ablations import FloatFallbackEffect, SettingEffect
from autoquant.reports.explanation import Explanation, explain_trials, read_trials
from autoquant.reports.wording import (
    changed,
    drop_words,
    figures,
    layer_settings,
    legend,
    model_settings,
    reasons,
)
from autoquant.reports.words import at_most, counted, number, percent, wide_words
from autoquant.tuning.study.choices import MACS

MOST = 8
"""Rows of a table; --json has all."""
MOST_NAMES = 3
"""Layers that are named beside each other."""
NUMBERS = ("divergence", "drop", "gain", "trials")


def add_arguments(parser: arguments.Parser) -> None:
    """The run."""
    parser.add_argument("run", metavar="RUN", help="the folder of the run, which may be going on")
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read the run, and explain it."""
    found = explain_trials(read_trials(Path(args.run)))
    say(json_text(found.facts()) if args.json else text(found, columns=terminal_columns(sys.stdout)))
    return 0


def text(found: Explanation, *, columns: int | None) -> str:
    """The best plan and its cost, measured effects, and the reasons of its float layers, in so many columns."""
    from rich.text import Text

    terms = found.run.terms
    shown = [one.pair for one in found.settings[:MOST]] + [one.pair for one in found.float_fallbacks[:MOST]]
    blocks: list[Block] = [
        labelled(cost(found), columns=columns),
        settings_table(found.settings),
        float_layers_table(found.float_fallbacks, terms.objective_name),
        [*legend(shown)],
        [Text(wrapped(line, columns), "" if place else "bold") for place, line in enumerate(reasons(found))],
    ]
    return page(blocks, columns=columns)


def cost(found: Explanation) -> Iterator[Row]:
    """The best plan, its cost, and the effort of the trials, as rows with labels."""
    run, terms, best = found.run, found.run.terms, found.run.best
    max_drop = f"max drop {number(terms.max_drop)}"
    yield "run", f"{run.run} ({terms.target}): FP32 {terms.metric} {number(terms.baseline)}, {max_drop}"
    if best is None:
        yield "best", f"none, as no trial finished; the last one failed: {run.trials[-1].failure}"
    else:
        met = "within tolerance" if best.meets(terms.max_drop) else "not within tolerance"
        score = "" if best.score is None else f"{terms.metric} {number(best.score)}, "
        yield "best", f"trial {best.number} ({best.why}): {score}drop {drop_words(best)}, {met}"
        claim = found.run.certificate
        if claim is not None:
            bound = f"{at_most(claim.upper_bound)} with {percent(claim.confidence)} confidence"
            samples = counted(claim.samples, "sample")
            yield "holdout", f"{claim.verdict}: drop {number(claim.drop)} on {samples}, {bound}"
        minimized = f"; {terms.objective_name} {percent(best.objective)} of the float model's"
        work = f"{percent(best.int8_share)} of the model's work{wide_words(best.int16_layers)}"
        share = f"{best.int8_layers} of {best.layers} layers, {work}"
        yield "INT8", share + ("" if terms.objective_name == MACS else minimized)
        yield "settings", ", ".join([*model_settings(best.plan), *layer_settings(list(best.plan.int8.values()))])
        if best.plan.float_operators:
            names = listed(sorted(best.plan.float_operators), most=MOST_NAMES)
            yield "in float", f"{names}, which are no layers, but lose much in INT8"
    yield "effort", _effort(found)
    for text in found.run.damaged:
        yield "left out", text


def _effort(found: Explanation) -> str:
    run = found.run
    states = [trial.state.value for trial in run.trials]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    unended = f", {run.unended} unfinished" if run.unended else ""
    parts = ", ".join(f"{part} {duration(spent)}" for part, spent in run.seconds.items())
    trials, samples = counted(len(run.trials), "trial"), counted(run.samples, "sample")
    return f"{trials} ({ended}{unended}), {samples} evaluated; {parts or 'no times'}"


def settings_table(settings: Sequence[SettingEffect]) -> Block:
    """The effect of settings, a row each; those changed together in one."""
    rows = []
    for one in settings:
        words = [changed(change) for change in one.changes]
        after, before = (" and ".join(side) for side in zip(*words, strict=True))
        rows.append((after, before, *figures(one.pair)))
    return _table(("effect of settings", "instead of"), rows)


def float_layers_table(effects: Sequence[FloatFallbackEffect], objective: str) -> Block:
    """The effect of layers in float, and their cost: in INT8 share, or in what else was minimized."""
    rows = []
    for one in effects:
        trials = (one.pair.before, one.pair.after)
        costs = [trial.int8_share if objective == MACS else trial.objective for trial in trials]
        names = listed(one.layers, most=MOST_NAMES)
        rows.append((names, " -> ".join(map(percent, costs)), *figures(one.pair)))
    return _table(("effect of float layers", "share in INT8" if objective == MACS else objective), rows)


def _table(words: tuple[str, str], rows: Sequence[Sequence[str]]) -> Block:
    if not rows:
        return []
    left = [f"... and {len(rows) - MOST} more, which --json lists"] if len(rows) > MOST else []
    return [Table((*words, *NUMBERS), rows[:MOST]), *left]
