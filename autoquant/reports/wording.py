"""What a run explained says, in words: effects, drops with their intervals, settings, and why layers are in float."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.messages import UNKNOWN
from autoquant.reports.ablations import Pair
from autoquant.reports.explanation import Explanation, FloatLayer, Reason
from autoquant.reports.plan_changes import LAYER_SETTINGS, PLAN_SETTINGS, Change, value_of
from autoquant.reports.words import counted, number, percent
from autoquant.tuning.study.space import setting_words
from autoquant.tuning.study.trial import Trial

MOST = 8
"""Groups of layers that are explained on a screen; --json has all."""
ALWAYS = ("activation", "channel_wise")
"""Settings of layers that are named even where they are the default."""


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


def figures(pair: Pair) -> tuple[str, str, str, str]:
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


def changed(change: Change) -> tuple[str, str]:
    """The new value of a setting, and the one before."""
    where = f" in {change.layers[0]}" if change.single else ""
    return setting_words(change.setting, change.after) + where, setting_words(change.setting, change.before)


def model_settings(plan: Plan) -> Iterator[str]:
    """The settings of a plan that are not the default."""
    default = type(plan)({})
    for setting in PLAN_SETTINGS:
        value = getattr(plan, setting)
        if setting == "batch_num" or value != getattr(default, setting):
            yield setting_words(setting, value)


def layer_settings(layers: Sequence[LayerPlan]) -> Iterator[str]:
    """The same of its layers, with how many have them where they differ."""
    for setting in LAYER_SETTINGS if layers else ():
        values = Counter(value_of(settings, setting) for settings in layers)
        default = value_of(type(layers[0])(), setting)
        if len(values) > 1:
            yield ", ".join(f"{setting_words(setting, value)} ({times})" for value, times in values.most_common())
        elif setting in ALWAYS or default not in values:
            yield setting_words(setting, next(iter(values)))
