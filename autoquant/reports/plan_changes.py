"""In what two plans differ: one setting, several, or layers that are in float in one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.tuning.study.space import label

Value = bool | int | float | str | None
PLAN_SETTINGS = tuple(entry.name for entry in fields(Plan) if entry.name not in ("layers", "float_operators"))
"""Settings of a plan as a whole; which operators between layers are in float follows from them."""
LAYER_SETTINGS = tuple(entry.name for entry in fields(LayerPlan))
"""Settings that each layer has for itself."""
LayersByValue = Mapping[tuple[str, Value], frozenset[str]]
"""A setting and a value of it -> the layers that have had it in any plan."""
algorithm_label = cache(label)


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is another. `layers` are those that it changes in, none where it is the plan's as a whole.

    `single` says that it changes in one layer while others could have it too.
    """

    setting: str
    before: Value
    after: Value
    layers: tuple[str, ...] = ()
    single: bool = False

    @property
    def reversed(self) -> Change:
        """The same the other way round."""
        return Change(self.setting, self.after, self.before, self.layers, self.single)

    @property
    def kind(self) -> tuple[str, frozenset[Value], tuple[str, ...]]:
        """What changes of one kind have in common, in either direction."""
        return self.setting, frozenset([self.before, self.after]), self.layers if self.single else ()


def layers_by_value(plans: Iterable[Plan]) -> LayersByValue:
    """Which layers have had which values: what a layer never had, it may not be able to have."""
    found: dict[tuple[str, Value], set[str]] = {}
    for plan in plans:
        for name, settings in plan.int8.items():
            for setting in LAYER_SETTINGS:
                found.setdefault((setting, value_of(settings, setting)), set()).add(name)
    return {key: frozenset(names) for key, names in found.items()}


def value_of(settings: Plan | LayerPlan, setting: str) -> Value:
    """The value of a setting, a range algorithm in words."""
    value = getattr(settings, setting)
    if setting == "activation":
        return algorithm_label(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def distance(one: Plan, other: Plan) -> int:
    """In how many settings of the whole, and in how many layers, two plans differ."""
    names = one.layers.keys() | other.layers.keys()
    layers = sum(one.layers.get(name) != other.layers.get(name) for name in names)
    return layers + sum(bool(getattr(one, setting) != getattr(other, setting)) for setting in PLAN_SETTINGS)


def same_settings(one: Plan, other: Plan) -> bool:
    """Whether two plans differ in nothing but which layers are in INT8."""
    mine, others = one.int8, other.int8
    return all(getattr(one, setting) == getattr(other, setting) for setting in PLAN_SETTINGS) and all(
        settings == others[name] for name, settings in mine.items() if name in others
    )


def changes(before: Plan, after: Plan, known: LayersByValue, *, most: int) -> tuple[Change, ...] | None:
    """The settings in which two plans of the same INT8 layers differ; None where these are more than `most`.

    A setting of layers counts as one change where it becomes the same in all layers that have ever had both values, or
    where it changes in one layer alone.
    """
    found: list[Change] = []
    for change in _changes(before, after, known):
        if change is None or len(found) == most:
            return None
        found.append(change)
    return tuple(found)


def _changes(before: Plan, after: Plan, known: LayersByValue) -> Iterator[Change | None]:
    for setting in PLAN_SETTINGS:
        if getattr(before, setting) != getattr(after, setting):
            yield Change(setting, value_of(before, setting), value_of(after, setting))
    mine, others = before.int8, after.int8
    differing = [name for name in mine if mine[name] != others[name]]
    for setting in LAYER_SETTINGS if differing else ():
        pairs = {name: (value_of(mine[name], setting), value_of(others[name], setting)) for name in differing}
        changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if changed:
            yield _one_change(setting, changed, known, frozenset(mine))


def _one_change(
    setting: str, changed: Mapping[str, tuple[Value, Value]], known: LayersByValue, int8: frozenset[str]
) -> Change | None:
    if len(set(changed.values())) > 1:
        return None
    old, new = next(iter(changed.values()))
    able = known[setting, old] & known[setting, new] & int8
    if changed.keys() != able and len(changed) > 1:
        return None
    return Change(setting, old, new, tuple(changed), single=len(able) > 1 and len(changed) == 1)
