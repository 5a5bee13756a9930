"""A search space file applied to the layers of one model: dimensions, starting points, and plans from parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from autoquant.calibration.plan import PER_TENSOR_ONLY, LayerPlan, Plan
from autoquant.calibration.ranges import RANGES, Ifmr, RangeAlgorithm, range_name
from autoquant.errors import SpaceError
from autoquant.formats.space_toml import Override, SpaceFile, Table
from autoquant.model.layers import Layer

Choice = bool | int | str
Parameters = Mapping[str, Choice]
SETTINGS = ("activation", "asymmetric", "channel_wise")


@dataclass(frozen=True, slots=True)
class Start:
    """A point to try first, and why."""

    parameters: Parameters
    why: str


class SearchSpace:
    """What may be chosen. A dimension with one choice is no dimension: Optuna never hears of it.

    Names of dimensions: `batch_num`, `<setting>` where one choice holds for all layers, `<layer>:<setting>` otherwise.
    """

    def __init__(self, file: SpaceFile, layers: Sequence[Layer], *, batches: int) -> None:
        """Raise SpaceError where a pattern or type matches nothing. `batches` is what calibration data there is."""
        self._layers = {layer.name: layer for layer in layers}
        self._batch_num = tuple(dict.fromkeys(min(number, batches) for number in file.batch_num))
        self._tables = {name: _table(file, layer) for name, layer in self._layers.items()}
        self._shared = file.shared
        for override in file.overrides:
            _check_matches(override, layers)
        self.dimensions: Mapping[str, tuple[Choice, ...]] = dict(self._all_dimensions())
        if not any(True in table.quant_enable for table in self._tables.values()):
            raise SpaceError(file.where, "leaves every layer in float", hint="allow quant_enable = true somewhere")

    @property
    def batch_nums(self) -> tuple[int, ...]:
        """Every number of calibration batches that a plan can ask for."""
        return self._batch_num

    @property
    def always_float(self) -> frozenset[str]:
        """Layers that no plan may quantize."""
        return frozenset(name for name, table in self._tables.items() if True not in table.quant_enable)

    def plan(self, parameters: Parameters) -> Plan:
        """The plan that Optuna's parameters mean."""
        layers = {name: self._layer_plan(name, parameters) for name in self._layers}
        return Plan(layers, int(parameters.get("batch_num", self._batch_num[0])))

    def starts(self) -> Iterator[Start]:
        """All layers in INT8 with each combination of global settings, then with each other layer setting alone."""
        first = {name: name.endswith(":quant_enable") or choices[0] for name, choices in self.dimensions.items()}
        shared = {name: choices for name, choices in self.dimensions.items() if ":" not in name}
        for values in itertools.product(*shared.values()):
            chosen = dict(zip(shared, values, strict=True))
            yield Start({**first, **chosen}, _why(chosen))
        for setting in SETTINGS:
            own = {name: choices for name, choices in self.dimensions.items() if name.endswith(f":{setting}")}
            for value in dict.fromkeys(choice for choices in own.values() for choice in choices[1:]):
                changed = {name: value for name, choices in own.items() if value in choices}
                yield Start({**first, **changed}, _why({setting: value}))

    def _all_dimensions(self) -> Iterator[tuple[str, tuple[Choice, ...]]]:
        yield from _dimension("batch_num", self._batch_num)
        quantizable = {name: table for name, table in self._tables.items() if True in table.quant_enable}
        for setting in SETTINGS:
            if not all(getattr(table, setting) for table in quantizable.values()):
                yield from _dimension(setting, _labels(getattr(self._shared, setting)))
        for name, table in quantizable.items():
            yield from _dimension(f"{name}:quant_enable", table.quant_enable)
            for setting in SETTINGS:
                yield from _dimension(f"{name}:{setting}", _labels(getattr(table, setting)))

    def _layer_plan(self, name: str, parameters: Parameters) -> LayerPlan | None:
        table = self._tables[name]
        if not parameters.get(f"{name}:quant_enable", table.quant_enable[0]):
            return None
        chosen = {}
        for setting in SETTINGS:
            own = getattr(table, setting)
            key, offered = (f"{name}:{setting}", own) if own else (setting, getattr(self._shared, setting))
            by_label = dict(zip(_labels(offered), offered, strict=True))
            chosen[setting] = by_label[parameters.get(key, next(iter(by_label)))]
        return LayerPlan(**chosen)


def label(setting: RangeAlgorithm) -> str:
    """A range setting in words: its algorithm, and the parameters that are not the default.

    >>> label(Ifmr(max_percentile=0.9999))
    'ifmr max_percentile=0.9999'
    """
    name = range_name(setting)
    default = asdict(RANGES[name]())
    return " ".join([name, *(f"{key}={value}" for key, value in asdict(setting).items() if value != default[key])])


def _labels(values: Sequence[Any]) -> tuple[Choice, ...]:
    return tuple(value if isinstance(value, bool | int) else label(value) for value in values)


def _dimension(name: str, choices: Sequence[Choice]) -> Iterator[tuple[str, tuple[Choice, ...]]]:
    if len(choices) > 1:
        yield name, tuple(choices)


def _table(file: SpaceFile, layer: Layer) -> Table:
    """What is offered to one layer itself; empty where the model's choice holds."""
    own = [override.table for override in file.overrides if _matches(override, layer)]
    tables = [*reversed(own), file.layer]  # the last override that says something wins
    found: dict[str, Any] = {}
    for setting, fallback in (
        ("quant_enable", (True,)),
        ("activation", (Ifmr(),)),
        ("asymmetric", (True,)),
        ("channel_wise", (True,)),
    ):
        offered = next((getattr(table, setting) for table in tables if getattr(table, setting)), ())
        shared = getattr(file.shared, setting)
        found[setting] = offered or (() if shared else fallback)
    if layer.op in PER_TENSOR_ONLY:
        found["channel_wise"] = (False,)
    return Table(**found)


def _matches(override: Override, layer: Layer) -> bool:
    return layer.op in override.types or any(fnmatchcase(layer.name, pattern) for pattern in override.patterns)


def _check_matches(override: Override, layers: Sequence[Layer]) -> None:
    for pattern in override.patterns:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers):
            names = ", ".join(layer.name for layer in layers[:3])
            raise SpaceError(override.where, f"no layer matches '{pattern}'", hint=f"layers are {names}, ...")
    for kind in override.types:
        if not any(layer.op == kind for layer in layers):
            kinds = ", ".join(sorted({layer.op for layer in layers}))
            raise SpaceError(override.where, f"no layer is a '{kind}'", hint=f"this model has {kinds}")


def _why(chosen: Mapping[str, Choice]) -> str:
    """In words: 'all INT8: minmax, per-channel'."""
    words = [_word(name, value) for name, value in chosen.items()]
    return "all INT8" + (": " + ", ".join(words) if words else "")


def _word(name: str, value: Choice) -> str:
    if name == "batch_num":
        return f"{value} batches" if value != 1 else "1 batch"
    if name == "asymmetric":
        return "asymmetric" if value else "symmetric"
    if name == "channel_wise":
        return "per-channel" if value else "per-tensor"
    return str(value)
