"""run.toml: the tables that a run is started with, each value of its kind, or an error that says which is not."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.errors import RunError

Table = dict[str, Any]
TEXT, WHOLE, NUMBER, FLAG = "a text", "a whole number", "a number", "true or false"
NAMES, SIZE, NUMBERS = "a list of texts", "two whole numbers", "a number, a text or a list of numbers"
DIGEST = "a SHA-256 in hex"
KINDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("model", "data", "calibration", "certify", "space", "metric", "preprocess", "junit"), TEXT),
        **dict.fromkeys(("signature", "target", "engine", "io", "objective", "sampler", "guard", "unit"), TEXT),
        **dict.fromkeys(("tolerance", "guard_tolerance", "storage", "study", "artifacts", "profile"), TEXT),
        **dict.fromkeys(
            ("label_offset", "batch_size", "max_trials", "seed", "cache", "samples", "keep_models", "jobs"), WHOLE
        ),
        **dict.fromkeys(
            ("timeout", "trial_timeout", "error_rate", "confidence", "min_baseline", "min_speedup"), NUMBER
        ),
        **dict.fromkeys(("stop_on_target", "keep_all_models", "allow_overlap", "isolate", "integer_only"), FLAG),
        **dict.fromkeys(("inputs", "outputs", "feed"), NAMES),
        **dict.fromkeys(("scale", "mean", "std"), NUMBERS),
        "image_size": SIZE,
    }
)
"""Field of a request -> the kind of its value."""
NEEDED = (
    *(("request", name) for name in ("model", "data", "tolerance")),
    *(("digests", name) for name in ("model", "data", "calibration", "metric")),
)
"""Without these there is no going on."""
HINT = "was it edited? put back what the search wrote, or start a new run"


def read_run_toml(path: Path) -> dict[str, Table]:
    """The tables of a run.toml. Raises RunError that names what is missing, or of another kind."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(str(path), f"cannot be read ({error})", hint="start a new run") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise RunError(f"{path}:{name}", f"must be a table, got {table!r}", hint=HINT)
    for name, key in NEEDED:
        if key not in tables.get(name, {}):
            raise RunError(f"{path}:{name}.{key}", "is missing", hint=HINT)
    for key, value in tables["request"].items():
        _check(f"{path}:request.{key}", value, KINDS.get(key))  # whoever makes a request of it knows the keys
    for key, value in tables["digests"].items():
        _check(f"{path}:digests.{key}", value, DIGEST)
    for key, value in tables.get("study", {}).items():
        _check(f"{path}:study.{key}", value, TEXT)
    for key, value in tables.get("plugins", {}).items():
        _check(f"{path}:plugins.{key}", value, NAMES)
    for key, value in tables.get("engine", {"name": ""}).items():
        _check(f"{path}:engine.{key}", value, TEXT if key in ("name", "version", "reason", "calibrates") else None)
    if "engine" in tables and "name" not in tables["engine"]:
        raise RunError(f"{path}:engine.name", "is missing", hint=HINT)
    return tables


def toml_text(table: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML of tables of strings, numbers, booleans and lists of them, which is all that run.toml holds."""
    lines = []
    for name, values in table.items():
        lines += [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """A string, number, boolean, or list of them."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # DEL alone is otherwise than in JSON


def is_kind(value: object, kind: str) -> bool:
    """Whether a value of TOML is of one of the kinds."""
    return _IS[kind](value)


def _check(where: str, value: object, kind: str | None) -> None:
    if kind is not None and not is_kind(value, kind):
        raise RunError(where, f"must be {kind}, got {value!r}", hint=HINT)


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and value == value


def _is_list(value: object, is_one: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(map(is_one, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_IS: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        TEXT: _is_text,
        WHOLE: _is_whole,
        NUMBER: _is_number,
        FLAG: lambda value: isinstance(value, bool),
        NAMES: lambda value: _is_list(value, _is_text),
        SIZE: lambda value: _is_list(value, _is_whole) and isinstance(value, list) and len(value) == 2,
        NUMBERS: lambda value: _is_text(value) or _is_number(value) or _is_list(value, _is_number),
        DIGEST: lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    }
)
