"""How settings of a plan are written on screens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autoquant.cli.words import counted

if TYPE_CHECKING:
    from autoquant.calibration.plan import LayerPlan, Plan
    from autoquant.reports.plan_changes import Change

WORDS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "batch_num": lambda count: f"calibrated on {counted(count, 'batch')}",
        "equalize": lambda on: "equalized" if on else "not equalized",
        "bias_correction": lambda how: "biases not corrected" if how == "none" else f"biases corrected ({how})",
        "activation": lambda name: f"ranges by {name}",
        "asymmetric": lambda on: "asymmetric" if on else "symmetric",
        "channel_wise": lambda on: "per channel" if on else "per tensor",
        "weight_bits": lambda bits: f"weights of {bits} bits",
        "dmq": lambda strength: "not balanced" if strength is None else f"balanced {strength}",
        "weight_algorithm": lambda name: f"weights by {name}",
    }
)
"""Setting -> what a value of it is called; others are written as they are."""
ALWAYS = ("activation", "channel_wise")
"""Settings of layers that are told of a plan even where they are the default."""


def word(setting: str, value: object) -> str:
    """A value of a setting.

    >>> word("dmq", 0.7), word("channel_wise", False), word("fp16_scales", True)
    ('balanced 0.7', 'per tensor', 'fp16_scales True')
    """
    return WORDS[setting](value) if setting in WORDS else f"{setting} {value}"


def changed_words(change: Change) -> tuple[str, str]:
    """What a change made of a plan, and what it was instead of: of an algorithm, the name alone."""
    where = f" in {change.layers[0]}" if change.single else ""
    named = change.setting in ("activation", "weight_algorithm")
    before = str(change.before) if named else word(change.setting, change.before)
    return word(change.setting, change.after) + where, before


def plan_words(plan: Plan) -> str:
    """The settings of a plan, as far as they are not what is always so.

    Those of layers with how many have them, where not all have the same.
    """
    return ", ".join([*_of_the_whole(plan), *_of_layers(list(plan.int8.values()))])


def _of_the_whole(plan: Plan) -> Iterator[str]:
    from autoquant.reports.plan_changes import WHOLE

    default = type(plan)({})
    for setting in WHOLE:
        value = getattr(plan, setting)
        if setting == "batch_num" or value != getattr(default, setting):
            yield word(setting, value)


def _of_layers(layers: list[LayerPlan]) -> Iterator[str]:
    from autoquant.reports.plan_changes import OF_LAYERS, value_of

    for setting in OF_LAYERS if layers else ():
        values = Counter(value_of(settings, setting) for settings in layers)
        default = value_of(type(layers[0])(), setting)
        if len(values) > 1:
            yield ", ".join(f"{word(setting, value)} ({times})" for value, times in values.most_common())
        elif setting in ALWAYS or default not in values:
            yield word(setting, next(iter(values)))
