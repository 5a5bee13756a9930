"""A search space file applied to the layers of one model: dimensions, starting points, and plans from parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from types import MappingProxyType
from typing import Any

from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import RANGES, Ifmr, RangeAlgorithm, range_name
from autoquant.errors import SpaceError
from autoquant.formats.space_toml import Choices, Override, SpaceFile
from autoquant.model.layer import Layer
from autoquant.model.operators import is_tensor

Choice = bool | int | str
Parameters = Mapping[str, Choice]
DEFAULTS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "activation": (Ifmr(),),
        "asymmetric": (True,),
        "channel_wise": (True,),
        "dmq": (None,),
        "weight_algorithm": ("minmax",),
        "power_of_two": (False,),
        "activation_bits": (8,),
    }
)
"""Setting of a layer -> its choices where the file names none: what AMCT does."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A point to try, why, in which phase of the search, and on how many samples at most: None until it is decided.

    `note` is what a sampler of Optuna wants to know of it when it chooses others.
    """

    parameters: Parameters
    why: str
    phase: str = ""
    max_samples: int | None = None
    note: Mapping[str, Any] = field(default_factory=dict)


class SearchSpace:
    """The dimensions of a search with their choices; those with a single choice are left out.

    Names of dimensions: `batch_num`, `equalize`, `weight_rounding`, `bias_correction`, `training`, `<setting>` where
    one choice holds for all layers, `<layer>:<setting>` otherwise.
    `layers` are those of the model, and of each operator that is `tensor_only` the first input that an override offers.
    """

    def __init__(self, file: SpaceFile, layers: Sequence[Layer], *, batches: int) -> None:
        """Raise SpaceError where a pattern or type matches nothing. `batches` counts those of the calibration data."""
        for override in file.overrides:
            _check_matches(override, layers)
        _check_wide(file, layers)
        self.layers: Mapping[str, Layer] = {layer.name: layer for layer in _offered(file, layers)}
        batch_num = tuple(dict.fromkeys(min(number, batches) for number in file.whole["batch_num"]))
        self._whole: Mapping[str, tuple[Any, ...]] = {**file.whole, "batch_num": batch_num}
        self._tables = {name: _table(file, layer) for name, layer in self.layers.items()}
        self._shared = file.shared
        self._layer_plans: dict[tuple[str, tuple[Choice, ...]], LayerPlan] = {}
        self._settings = {name: dict(self._settings_of(table, name)) for name, table in self._tables.items()}
        every = self._all_dimensions()
        self.dimensions: Mapping[str, tuple[Choice, ...]] = {name: own for name, own in every if len(own) > 1}
        self._by_unit: dict[str, dict[str, tuple[Choice, ...]]] = {}
        for name, own in self.dimensions.items():
            self._by_unit.setdefault(name.rpartition(":")[0], {})[name] = own
        if all(is_tensor(name) for name in self._quantizable):
            raise SpaceError(file.where, "leaves every layer in float", hint="allow quant_enable = true somewhere")

    @property
    def batch_nums(self) -> tuple[int, ...]:
        """Every number of calibration batches that a plan can ask for."""
        return self._whole["batch_num"]

    @property
    def always_float(self) -> frozenset[str]:
        """Layers that no plan may quantize."""
        return frozenset(self._tables.keys() - self._quantizable.keys())

    @property
    def balanced(self) -> frozenset[str]:
        """Layers that a plan may balance."""
        return frozenset(name for name, table in self._quantizable.items() if any(table.dmq or self._shared.dmq))

    def may_be_float(self, name: str) -> bool:
        """Whether a plan may leave in float what another quantizes."""
        return switch_of(name) in self.dimensions

    def dimensions_of(self, unit: str) -> Mapping[str, tuple[Choice, ...]]:
        """The dimensions of one layer, or of an operator's input; with '' those of the whole model."""
        return self._by_unit.get(unit, {})

    def plan(self, parameters: Parameters) -> Plan:
        """The plan that Optuna's parameters mean. Inputs of operators are quantized beside layers, never alone."""
        plans = _beside_layers({name: self.layer_plan(name, parameters) for name in self.layers})
        return Plan(plans, **{name: parameters.get(name, choices[0]) for name, choices in self._whole.items()})

    def with_float(self, plan: Plan, name: str) -> Plan:
        """A plan of the space with one more layer in float."""
        return replace(plan, layers=_beside_layers({**plan.layers, name: None}))

    def starts(self) -> Iterator[Suggestion]:
        """All layers in INT8 with the preferred settings, then with each other global and layer setting alone.

        Whether inputs of operators are quantized is one of the settings.
        """
        first = {name: _switches_layer(name) or choices[0] for name, choices in self.dimensions.items()}
        shared = {name: choices for name, choices in self.dimensions.items() if ":" not in name}
        preferred = {name: choices[0] for name, choices in shared.items()}
        yield Suggestion(first, all_int8_words(preferred))
        for name, choices in shared.items():
            for value in choices[1:]:
                yield Suggestion({**first, name: value}, all_int8_words({name: value}))
        varied = {name: c for name, c in self.dimensions.items() if ":" in name and not _switches_layer(name)}
        for setting in (*DEFAULTS, QUANT_ENABLE):
            own = {name: choices for name, choices in varied.items() if name.endswith(f":{setting}")}
            for value in dict.fromkeys(choice for choices in own.values() for choice in choices[1:]):
                changed = {name: value for name, choices in own.items() if value in choices}
                yield Suggestion({**first, **changed}, all_int8_words({setting: value}))

    @property
    def fullest(self) -> Plan:
        """The plan with every layer in INT8 that may be, which is the first that a search tries."""
        return self.plan(next(self.starts()).parameters)

    @property
    def widest(self) -> Plan:
        """The same with activations of 16 bits, where there is that choice."""
        first = next(self.starts()).parameters
        wide = {name: 16 for name, choices in self.dimensions.items() if 16 in choices and name.endswith(BITS)}
        return self.plan({**first, **wide})

    @property
    def _quantizable(self) -> Mapping[str, Choices]:
        return {name: table for name, table in self._tables.items() if True in table.quant_enable}

    def _all_dimensions(self) -> Iterator[tuple[str, tuple[Choice, ...]]]:
        yield from self._whole.items()
        quantizable = self._quantizable
        for setting in DEFAULTS:
            if not all(getattr(table, setting) for table in quantizable.values()):
                yield setting, _labels(getattr(self._shared, setting))
        for name, table in quantizable.items():
            yield switch_of(name), table.quant_enable
            for setting in DEFAULTS:
                yield f"{name}:{setting}", _labels(getattr(table, setting))

    def layer_plan(self, name: str, parameters: Parameters) -> LayerPlan | None:
        """The settings of one layer, or of an operator's input, that Optuna's parameters mean; None in float."""
        table = self._tables[name]
        if not parameters.get(switch_of(name), table.quant_enable[0]):
            return None
        settings = self._settings[name]
        labels = tuple(parameters.get(key, first) for key, first, _ in settings.values())
        found = self._layer_plans.get((name, labels))
        if found is None:
            chosen = {
                setting: by_label[label]
                for (setting, (_, _, by_label)), label in zip(settings.items(), labels, strict=True)
            }
            found = self._layer_plans[name, labels] = layer_plan(self.layers[name], LayerPlan(**chosen))
        return found

    def _settings_of(self, table: Choices, name: str) -> Iterator[tuple[str, tuple[str, Choice, Mapping[Choice, Any]]]]:
        """Of each setting of a layer the dimension that says it, what it is without one, and values by their labels."""
        for setting in DEFAULTS:
            own = getattr(table, setting)
            key, offered = (f"{name}:{setting}", own) if own else (setting, getattr(self._shared, setting))
            by_label = _by_label(setting, offered)
            yield setting, (key, next(iter(by_label)), by_label)


def _beside_layers(plans: Mapping[str, LayerPlan | None]) -> Mapping[str, LayerPlan | None]:
    """The same without inputs of operators, where no layer is in INT8 beside them."""
    alone = all(is_tensor(name) for name, settings in plans.items() if settings is not None)
    return dict.fromkeys(plans) if alone else plans


def switch_of(name: str) -> str:
    """The dimension that says whether a layer, or an operator's input, is in INT8 or in float."""
    return f"{name}:{QUANT_ENABLE}"


def bits_of(name: str) -> str:
    """The dimension that says how many bits the activations of a layer have."""
    return f"{name}:{BITS}"


def _labels(values: Sequence[Any]) -> tuple[Choice, ...]:
    return tuple(value if isinstance(value, bool | int | str) else choice_label(value) for value in values)


@cache
def _by_label(setting: str, values: tuple[Any, ...]) -> Mapping[Choice, Any]:
    """The values of a setting by what Optuna knows them as: every plan asks for those of every layer."""
    return dict(zip(_labels(values), values, strict=True))


def _switches_layer(dimension: str) -> bool:
    """Whether a dimension is INT8 or float of a layer, and not of an operator's input."""
    name, _, setting = dimension.rpartition(":")
    return setting == QUANT_ENABLE and not is_tensor(name)


def _offered(file: SpaceFile, layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers, and the inputs of operators that may be quantized: one of each operator, as AMCT has it."""
    taken: set[str] = set()
    for layer in layers:
        if not layer.tensor_only:
            yield layer
        elif layer.node not in taken and True in _table(file, layer).quant_enable:
            taken.add(layer.node)
            yield layer


def _table(file: SpaceFile, layer: Layer) -> Choices:
    """The choices of one layer itself, as far as it can have them; empty where those of the whole model hold."""
    own = [override.table for override in file.overrides if _matches(override, layer)]
    tables = [*reversed(own), file.layer]  # the last override that says something wins
    # An input of an operator is quantized only where an override names it or its type.
    enable = _first(tables[:-1], QUANT_ENABLE) or (False,) if layer.tensor_only else _first(tables, QUANT_ENABLE)
    if not layer.can.in_float:
        if enable == (False,):
            what = f"leaves '{layer.name}' in float, and {layer.can.no_float_by} leaves nothing in float"
            hint = f"allow quant_enable = true for it, or leave out {layer.can.no_float_by}"
            raise SpaceError(file.where, what, hint=hint)
        enable = (True,)
    found: dict[str, Any] = {QUANT_ENABLE: enable or (True,)}
    for setting, default in DEFAULTS.items():
        offered, shared = _first(tables, setting), getattr(file.shared, setting)
        if setting == BITS and not layer.can.in_float:
            default = (8, 16)  # all there is to choose where INT8 loses too much
        possible = _possible(layer, setting, offered or shared or default)
        found[setting] = () if possible == shared and not offered else possible
    return Choices(**found)


def _first(tables: Sequence[Choices], setting: str) -> tuple[Any, ...]:
    """The choices of a setting in the first table that has any."""
    return next((getattr(table, setting) for table in tables if getattr(table, setting)), ())


def _possible(layer: Layer, setting: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """The values of a setting that a layer can have, each once."""
    return tuple(dict.fromkeys(getattr(layer_plan(layer, LayerPlan(**{setting: value})), setting) for value in values))


def _matches(override: Override, layer: Layer) -> bool:
    return layer.op in override.types or any(_names(pattern, layer.name) for pattern in override.patterns)


def _names(pattern: str, name: str) -> bool:
    """Whether a name matches; a pattern for inputs of operators has the colon of their names, so '*' is layers."""
    return is_tensor(pattern) == is_tensor(name) and fnmatchcase(name, pattern)


def _check_matches(override: Override, layers: Sequence[Layer]) -> None:
    for pattern in override.patterns:
        if not any(_names(pattern, layer.name) for layer in layers):
            kind = "input" if is_tensor(pattern) else "layer"
            names = [layer.name for layer in layers if is_tensor(layer.name) == is_tensor(pattern)]
            hint = f"{kind}s are {', '.join(names[:3])}, ..." if names else "this model has no Add and no MaxPool"
            if any(_names(f"{pattern}:*", layer.name) for layer in layers):
                hint = f"inputs of operators have a number behind their name: try '{pattern}:0'"
            raise SpaceError(override.where, f"no {kind} matches '{pattern}'", hint=hint)
    for kind in override.types:
        if not any(layer.op == kind for layer in layers):
            kinds = ", ".join(sorted({layer.op for layer in layers}))
            raise SpaceError(override.where, f"no layer is a '{kind}'", hint=f"this model has {kinds}")


def _check_wide(file: SpaceFile, layers: Sequence[Layer]) -> None:
    """Raise SpaceError where 16-bit activations are offered and no layer can have them."""
    tables = [file.shared, file.layer, *(override.table for override in file.overrides)]
    wide = max((bits for table in tables for bits in table.activation_bits), default=8)
    if all(wide not in layer.can.activation_bits for layer in layers):
        what = f"activation_bits {wide}: no layer of this model can have that on this target"
        raise SpaceError(file.where, what, hint="remove it, or give --target litert, which has INT16 activations")


def all_int8_words(chosen: Mapping[str, Choice]) -> str:
    """All layers in INT8 with these settings, in words: 'all INT8: minmax, per-channel'."""
    words = ", ".join(setting_words(name, value) for name, value in chosen.items())
    return f"all INT8: {words}" if words else "all INT8"


QUANT_ENABLE = "quant_enable"
"""The setting that says whether a layer is in INT8 or in float."""
BITS = "activation_bits"
"""The setting that says whether activations of a layer have 8 or 16 bits."""


def label(setting: RangeAlgorithm) -> str:
    """A range setting in words: its algorithm, and the parameters that are not the default.

    >>> label(Ifmr(max_percentile=0.9999))
    'ifmr max_percentile=0.9999'
    """
    name = range_name(setting)
    default = asdict(RANGES[name]())
    return " ".join([name, *(f"{key}={value}" for key, value in asdict(setting).items() if value != default[key])])


def choice_label(value: RangeAlgorithm | float | None) -> str:
    """A choice of a dimension that is not a plain value, in words."""
    if value is None:
        return "no dmq"
    return f"dmq {value}" if isinstance(value, float) else label(value)


def setting_words(name: str, value: Any) -> str:
    """A value of a setting in words: of a plan, or of a dimension of the whole model.

    >>> setting_words("batch_num", 8), setting_words("channel_wise", False), setting_words("dmq", None)
    ('8 batches', 'per-tensor', 'no dmq')
    """
    return SETTING_WORDS[name](value) if name in SETTING_WORDS else f"{name} {value}"


SETTING_WORDS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "batch_num": lambda count: f"{count} batches" if count != 1 else "1 batch",
        "equalize": lambda on: "equalized" if on else "not equalized",
        "weight_rounding": lambda how: f"weights rounded {'to nearest' if how == 'nearest' else f'by {how}'}",
        "bias_correction": lambda how: "biases not corrected" if how == "none" else f"biases corrected ({how})",
        "training": lambda on: "trained" if on else "not trained",
        "activation": str,
        "asymmetric": lambda on: "asymmetric" if on else "symmetric",
        "channel_wise": lambda on: "per-channel" if on else "per-tensor",
        "weight_bits": lambda bits: f"{bits}-bit weights",
        "dmq": lambda value: value if isinstance(value, str) else choice_label(value),
        "weight_algorithm": lambda name: f"weights by {name}",
        "power_of_two": lambda on: "scales of powers of two" if on else "any scales",
        "activation_bits": lambda bits: f"{bits}-bit activations",
        QUANT_ENABLE: lambda on: "tensors quantized" if on else "tensors in float",
    }
)
"""Setting -> how a value of it is written on screens and in trials; others are written as they are."""
