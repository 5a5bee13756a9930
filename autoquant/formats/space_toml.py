"""Search space files: what the search may choose, as TOML. The presets are in `search_spaces/`."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any

from autoquant.calibration.plan import ACTIVATION_BITS, CORRECTIONS, ROUNDINGS, WEIGHT_ALGORITHMS, LayerPlan
from autoquant.calibration.ranges import RANGES, RangeAlgorithm
from autoquant.errors import SpaceError, did_you_mean
from autoquant.formats.strict import Fields, as_float

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of one table of the file for each setting, preferred value first; empty where there are none.

    `dmq` holds migration strengths, None for no balancing.
    """

    quant_enable: tuple[bool, ...] = ()
    activation: tuple[RangeAlgorithm, ...] = ()
    asymmetric: tuple[bool, ...] = ()
    channel_wise: tuple[bool, ...] = ()
    dmq: tuple[float | None, ...] = ()
    weight_algorithm: tuple[str, ...] = ()
    power_of_two: tuple[bool, ...] = ()
    activation_bits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """A table for the layers whose name matches a pattern, or whose operator is of a type."""

    patterns: tuple[str, ...]
    types: tuple[str, ...]
    table: Choices
    where: str


@dataclass(frozen=True, slots=True)
class SpaceFile:
    """A search space as written: what is chosen once for all layers, for each layer, and where it differs.

    `whole` are settings of the plan itself, by their name in Plan, preferred value first.
    """

    where: str
    text: str
    whole: Mapping[str, tuple[Any, ...]]
    shared: Choices
    layer: Choices
    overrides: tuple[Override, ...]


def presets() -> Mapping[str, Path]:
    """The search spaces that come with autoquant, by name."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "search_spaces"
    folder = installed if installed.is_dir() else package.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_space(name_or_path: str | Path) -> SpaceFile:
    """Read a preset by name, or a file. Raises SpaceError with line and column, or the key, and what would be right."""
    found = presets()
    path = found.get(str(name_or_path)) or Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = did_you_mean(str(name_or_path), found, otherwise=f"give a file, or one of {', '.join(found)}")
        what = "is neither a file nor a preset" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise SpaceError(str(name_or_path), what, hint=hint) from None
    return parse_space(text, path.name if path in found.values() else str(path))


def parse_space(text: str, where: str) -> SpaceFile:
    """Read the text of a search space. Raises SpaceError."""
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # what TOML refuses, and what Python refuses: endless numbers, depth
        raise SpaceError(where, f"is not valid TOML: {error}", hint="correct that place") from None
    fields = Fields(content, where, SpaceError)
    fields.only("version", [1], 1)
    common = fields.sub("global")
    whole = _whole(common)
    shared, layer = _table(common, "global"), _table(fields.sub("layer"), "layer")
    _disjoint(fields, shared, layer)
    listed = fields.raw("override")
    if not isinstance(listed, list | None):
        hint = "begin each with [[override]]"
        raise fields.error("override", f"expected a list of tables, got {listed!r}", hint=hint)
    entries = (fields.nested(entry, f"override[{number}]") for number, entry in enumerate(listed or ()))
    overrides = tuple(map(_override, entries))
    fields.done()
    return SpaceFile(where, text, whole, shared, layer, overrides)


def _whole(fields: Fields) -> Mapping[str, tuple[Any, ...]]:
    """Settings of the plan itself."""
    batch_num = _choices(fields, "batch_num", int) or (1,)
    for number in batch_num:
        if number < 1:
            raise fields.error("batch_num", f"must be greater than zero, got {number}", hint="for example [1, 16]")
    return MappingProxyType(
        {
            "batch_num": batch_num,
            "equalize": _choices(fields, "equalize", bool) or (False,),
            "weight_rounding": _choices(fields, "weight_rounding", str, ROUNDINGS) or ("nearest",),
            "bias_correction": _choices(fields, "bias_correction", str, CORRECTIONS) or ("none",),
            "training": _choices(fields, "training", bool) or (False,),
        }
    )


def _table(fields: Fields, kind: str) -> Choices:
    quant_enable = () if kind == "global" else _choices(fields, "quant_enable", bool)
    table = Choices(
        quant_enable,
        _activations(fields),
        _choices(fields, "asymmetric", bool),
        _choices(fields, "channel_wise", bool),
        _strengths(fields),
        _choices(fields, "weight_algorithm", str, WEIGHT_ALGORITHMS),
        _choices(fields, "power_of_two", bool),
        _choices(fields, "activation_bits", int, ACTIVATION_BITS),
    )
    fields.done()
    return table


def _override(fields: Fields) -> Override:
    patterns, types = _choices(fields, "layers", str), _choices(fields, "types", str)
    if not patterns and not types:
        raise SpaceError(fields.where, "says for no layer", hint='give layers = ["conv1*"] or types = ["MatMul"]')
    return Override(patterns, types, _table(fields, "override"), fields.where)


def _strengths(fields: Fields) -> tuple[float | None, ...]:
    """Migration strengths of the balancer; false, which stands for none, becomes None."""
    value = fields.raw("dmq_balancer")
    given = [] if value is None else value if isinstance(value, list) else [value]
    strengths = [None if one is False else as_float(one) for one in given]
    if any(type(one) not in (float, NoneType) for one in strengths) or (value is not None and not strengths):
        hint = "false is without it; for example [false, 0.5]"
        raise fields.error("dmq_balancer", f"expected a list of numbers or false, got {value!r}", hint=hint)
    for strength in strengths:
        fields.build(partial(LayerPlan, dmq=strength))
    return _each_once(fields, "dmq_balancer", strengths)


def _activations(fields: Fields) -> tuple[RangeAlgorithm, ...]:
    """Every algorithm with every combination of its parameters."""
    settings: list[RangeAlgorithm] = []
    algorithms = _choices(fields, "act_algo", str, RANGES)
    for name in algorithms:
        kind, parameters = RANGES[name], fields.sub(name)
        grid = {key: _choices(parameters, key, type(value)) or (value,) for key, value in asdict(kind()).items()}
        parameters.done()
        chosen = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        settings += [parameters.build(partial(kind, **values)) for values in chosen]
    for name in RANGES:
        if name not in algorithms and fields.sub(name).rest():
            raise fields.error(name, "has parameters but is not in act_algo", hint=f'add "{name}" to act_algo')
    return tuple(settings)


def _choices(fields: Fields, key: str, kind: type, known: Collection[Any] = ()) -> tuple[Any, ...]:
    """A list of values of one kind, each once, and of those `known`; a single value is a list of one, none is ()."""
    value = fields.raw(key)
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if kind is float:
        values = [as_float(v) for v in values]
    if not values or any(type(v) is not kind for v in values):
        raise fields.error(key, f"expected a list of {kind.__name__}, got {value!r}", hint="at least one value")
    for name in values if known else ():
        fields.chosen(key, name, sorted(known))
    return _each_once(fields, key, values)


def _each_once(fields: Fields, key: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise fields.error(key, f"a value appears twice in {list(values)!r}", hint="remove one of the two")
    return tuple(values)


def _disjoint(fields: Fields, shared: Choices, layer: Choices) -> None:
    words = {"activation": "act_algo", "dmq": "dmq_balancer"}
    for key in (field.name for field in dataclass_fields(Choices) if field.name != "quant_enable"):
        word = words.get(key, key)
        if getattr(shared, key) and getattr(layer, key):
            raise fields.error(f"layer.{word}", "is in [global] as well", hint="choose it once, or layer by layer")
