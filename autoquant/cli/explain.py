"""`autoquant explain`: the best plan of a run and its cost, the effect of settings, why layers are in float."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.cli import arguments
from autoquant.cli.output import UNKNOWN, Block, Row, Table, labelled, page, say, terminal_columns, wrapped
from autoquant.cli.pulse import duration
from autoquant.cli.words import at_most, counted, number, percent
from autoquant.errors import listed
from autoquant.formats.codec import json_text
from autoquant.reports.ablations import FloatFallbackEffect, Pair, SettingEffect
from autoquant.reports.explanation import Explanation, FloatLayer, Reason, explain_trials, read_trials
from autoquant.reports.plan_changes import LAYER_SETTINGS, PLAN_SETTINGS, Change, value_of
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.space import setting_words
from autoquant.tuning.study.trial import Trial

MOST = 8
"""Rows of a table; --json has all."""
MOST_NAMES = 3
"""Layers that are named beside each other."""
NUMBERS = ("divergence", "drop", "gain", "trials")
ALWAYS = ("activation", "channel_wise")
"""Settings of layers that are named even where they are the default."""


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
        share = f"{best.int8_layers} of {best.layers} layers, {percent(best.int8_share)} of the model's work"
        yield "INT8", share + ("" if terms.objective_name == MACS else minimized)
        yield "settings", ", ".join([*_of_the_model(best.plan), *_of_layers(list(best.plan.int8.values()))])
        if best.plan.float_operators:
            names = listed(sorted(best.plan.float_operators), most=MOST_NAMES)
            yield "in float", f"{names}, which are no layers, but lose much in INT8"
    yield "effort", _effort(found)


def _effort(found: Explanation) -> str:
    run = found.run
    states = [trial.state.value for trial in run.trials]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    unended = f", {run.unended} unfinished" if run.unended else ""
    parts = ", ".join(f"{part} {duration(spent)}" for part, spent in run.seconds.items())
    trials, samples = counted(len(run.trials), "trial"), counted(run.samples, "sample")
    return f"{trials} ({ended}{unended}), {samples} evaluated; {parts or 'no times'}"


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


def settings_table(settings: Sequence[SettingEffect]) -> Block:
    """The effect of settings, a row each; those changed together in one."""
    rows = []
    for one in settings:
        words = [_changed(change) for change in one.changes]
        after, before = (" and ".join(side) for side in zip(*words, strict=True))
        rows.append((after, before, *_figures(one.pair)))
    return _table(("effect of settings", "instead of"), rows)


def float_layers_table(effects: Sequence[FloatFallbackEffect], objective: str) -> Block:
    """The effect of layers in float, and their cost: in INT8 share, or in what else was minimized."""
    rows = []
    for one in effects:
        trials = (one.pair.before, one.pair.after)
        costs = [trial.int8_share if objective == MACS else trial.objective for trial in trials]
        names = listed(one.layers, most=MOST_NAMES)
        rows.append((names, " -> ".join(map(percent, costs)), *_figures(one.pair)))
    return _table(("effect of float layers", "share in INT8" if objective == MACS else objective), rows)


def legend(pairs: Sequence[Pair]) -> Iterator[str]:
    """The meaning of the columns."""
    over = sorted({pair.divergence.samples for pair in pairs if pair.divergence})
    if over:
        samples = f"{over[0]:,}" if len(over) == 1 else f"{over[0]:,} to {over[-1]:,}"
        yield f"divergence: mean divergence of outputs from FP32's, over the same {samples} samples in both trials"
    if any(pair.gain is not None and not _exact(pair) for pair in pairs):
        yield "~: estimated, as the trial was stopped early; an interval in brackets holds at the run's error rate"


def drop_words(trial: Trial) -> str:
    """A drop, with '~' in front where it is an estimate; negative where INT8 is better than FP32."""
    if trial.drop is None:
        return UNKNOWN
    return number(trial.drop) if trial.score is not None else f"~{number(trial.drop)}"


def interval_words(low: float | None, high: float | None) -> str:
    """The interval of an estimate, where it has one."""
    bounded = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    return f" ({low:.2g} to {high:.2g})" if bounded else ""


def _figures(pair: Pair) -> tuple[str, str, str, str]:
    """The figures of two trials, as NUMBERS has them."""
    divergences, gain, numbers = pair.divergence, pair.gain, f"{pair.before.number}, {pair.after.number}"
    divergence = f"{divergences.before:.3g} -> {divergences.after:.3g}" if divergences else UNKNOWN
    if gain is None:
        return divergence, UNKNOWN, UNKNOWN, numbers
    interval = "" if _exact(pair) else interval_words(gain.low, gain.high)
    drops = f"{drop_words(pair.before)} -> {drop_words(pair.after)}"
    return divergence, drops, number(gain.estimate) + interval, numbers


def _exact(pair: Pair) -> bool:
    return pair.before.score is not None and pair.after.score is not None


def _table(words: tuple[str, str], rows: Sequence[Sequence[str]]) -> Block:
    if not rows:
        return []
    left = [f"... and {len(rows) - MOST} more, which --json lists"] if len(rows) > MOST else []
    return [Table((*words, *NUMBERS), rows[:MOST]), *left]


def _changed(change: Change) -> tuple[str, str]:
    """The new value of a setting, and the one before."""
    where = f" in {change.layers[0]}" if change.single else ""
    return setting_words(change.setting, change.after) + where, setting_words(change.setting, change.before)


def _of_the_model(plan: Plan) -> Iterator[str]:
    """The settings of a plan that are not the default."""
    default = type(plan)({})
    for setting in PLAN_SETTINGS:
        value = getattr(plan, setting)
        if setting == "batch_num" or value != getattr(default, setting):
            yield setting_words(setting, value)


def _of_layers(layers: list[LayerPlan]) -> Iterator[str]:
    """The same of its layers, with how many have them where they differ."""
    for setting in LAYER_SETTINGS if layers else ():
        values = Counter(value_of(settings, setting) for settings in layers)
        default = value_of(type(layers[0])(), setting)
        if len(values) > 1:
            yield ", ".join(f"{setting_words(setting, value)} ({times})" for value, times in values.most_common())
        elif setting in ALWAYS or default not in values:
            yield setting_words(setting, next(iter(values)))
