"""Tables of the measured effect of settings and of float layers, and how settings of a plan are written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from autoquant.cli.output import UNKNOWN, Block, Table
from autoquant.cli.words import number, percent

if TYPE_CHECKING:
    from autoquant.calibration.plan import LayerPlan, Plan
    from autoquant.reports.ablations import FloatFallbackEffect, Pair, SettingEffect
    from autoquant.reports.plan_changes import Change
    from autoquant.tuning.study.trial import Trial

MOST = 8
"""Rows of a table; --json has all."""
MOST_NAMES = 3
"""Layers that are named beside each other."""
NUMBERS = ("divergence", "drop", "gain", "trials")
ALWAYS = ("activation", "channel_wise")
"""Settings of layers that are named even where they are the default."""


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
    from autoquant.tuning.study.choices import MACS

    rows = []
    for one in effects:
        left = len(one.layers) - MOST_NAMES
        names = ", ".join(one.layers[:MOST_NAMES]) + (f" and {left} more" if left > 0 else "")
        trials = (one.pair.before, one.pair.after)
        costs = [trial.int8_share if objective == MACS else trial.objective for trial in trials]
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


def plan_words(plan: Plan) -> str:
    """The settings of a plan that are not the default, and of its layers with how many have them where they differ."""
    return ", ".join([*_of_the_model(plan), *_of_layers(list(plan.int8.values()))])


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
    from autoquant.tuning.study.setting_words import setting_words

    where = f" in {change.layers[0]}" if change.single else ""
    return setting_words(change.setting, change.after) + where, setting_words(change.setting, change.before)


def _of_the_model(plan: Plan) -> Iterator[str]:
    from autoquant.reports.plan_changes import PLAN_SETTINGS
    from autoquant.tuning.study.setting_words import setting_words

    default = type(plan)({})
    for setting in PLAN_SETTINGS:
        value = getattr(plan, setting)
        if setting == "batch_num" or value != getattr(default, setting):
            yield setting_words(setting, value)


def _of_layers(layers: list[LayerPlan]) -> Iterator[str]:
    from autoquant.reports.plan_changes import LAYER_SETTINGS, value_of
    from autoquant.tuning.study.setting_words import setting_words

    for setting in LAYER_SETTINGS if layers else ():
        values = Counter(value_of(settings, setting) for settings in layers)
        default = value_of(type(layers[0])(), setting)
        if len(values) > 1:
            yield ", ".join(f"{setting_words(setting, value)} ({times})" for value, times in values.most_common())
        elif setting in ALWAYS or default not in values:
            yield setting_words(setting, next(iter(values)))
