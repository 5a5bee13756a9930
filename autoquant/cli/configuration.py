"""The options of a search in a TOML file: the run.toml of any run, or one that a person wrote."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autoquant.errors import UsageError, did_you_mean
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.formats.strict import read_text
from autoquant.options import READERS
from autoquant.tuning.study.code import check_code
from autoquant.tuning.study.places import IN_MEMORY, from_folder
from autoquant.tuning.study.request import TRUST_MODEL, SearchRequest
from autoquant.tuning.study.run_toml import KINDS, NUMBER, is_kind

OPTIONS = "request"
"""The table of the options."""
FACTS = ("code", "digests", "engine", "model", "plugins", "splits", "study", "versions")
"""The tables of facts that a run adds to its run.toml."""
NEEDED = ("model", "data", "tolerance")
TOLERANCES = ("tolerance", "guard_tolerance")
WORDS = ("timeout", "trial_timeout", "cache")
"""Options that may be written as on the command line too: '2h', '8GB'."""


def configured(path: Path, given: Mapping[str, Any]) -> SearchRequest:
    """The request that a file and the options `given` on the command line make, of which the latter go first.

    Relative paths in the file are relative to its folder. What a run found out is not used, but of code: a run's own
    file imports none that is not what that run was started with, and none of the run's folder, as for resuming it.
    Raises UsageError with the file and the key, RunError for such code.
    """
    tables = _read(path)
    options = {key: _option(path, key, value) for key, value in tables[OPTIONS].items() if key not in given}
    if "digests" in tables:
        options.pop("junit", None)  # which is that run's
    for key in NEEDED:
        if key not in {**options, **given}:
            what = "is missing, on the command line too"
            raise UsageError(f"{path}:{OPTIONS}.{key}", what, hint=f'write for example {key} = "{_EXAMPLES[key]}"')
    try:
        request = SearchRequest(**{**options, **given})
    except UsageError as error:
        key = error.where.lstrip("-").partition(" ")[0].replace("-", "_")
        if key not in options:
            raise
        raise UsageError(f"{path}:{OPTIONS}.{key}", error.what, hint=error.hint) from None
    if "digests" in tables:
        hint = "read it, and name it on the command line if it is what you want"
        check_code(path.resolve().parent, request, tables.get("code", {}), given, hint=hint)
    return request


_EXAMPLES: Mapping[str, str] = MappingProxyType({"model": "model.keras", "data": "evaluation.npz", "tolerance": "1%"})


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a file, one of which are the options. Raises UsageError."""
    hint = "give the run.toml of a run, or let `autoquant init` write one"
    try:
        tables = tomllib.loads(read_text(path, hint=hint, error=UsageError))
    except (ValueError, RecursionError) as error:
        raise UsageError(str(path), f"is not valid TOML: {error}", hint="correct that line") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            where = f"under [{OPTIONS}]" if name in KINDS else "in no table"
            raise UsageError(f"{path}:{name}", f"must stand {where}", hint=f"write [{OPTIONS}] above the options")
        if name not in (OPTIONS, *FACTS):
            other = did_you_mean(name, (OPTIONS, *FACTS), otherwise=f"options stand under [{OPTIONS}]")
            raise UsageError(f"{path}:{name}", "unknown table", hint=other)
    if OPTIONS not in tables:
        raise UsageError(str(path), f"has no table [{OPTIONS}]", hint=hint)
    return tables


def _option(path: Path, key: str, value: Any) -> Any:
    """The value of an option as a request takes it. Raises UsageError."""
    where = f"{path}:{OPTIONS}.{key}"
    if key == TRUST_MODEL:
        raise UsageError(where, "no file can vouch for a model", hint="give --trust-model on the command line")
    if key not in KINDS:
        known = did_you_mean(key.replace("-", "_"), KINDS, otherwise=f"known are {', '.join(sorted(KINDS))}")
        raise UsageError(where, "unknown option", hint=known)
    if value == IN_MEMORY:
        raise UsageError(where, "was in memory when that run was started", hint=f"give --{key} with a file")
    if key in TOLERANCES and (isinstance(value, str) or is_kind(value, NUMBER)):
        return _checked(where, Tolerance.parse, value)
    if key in WORDS and isinstance(value, str):
        return _checked(where, READERS[key], value)
    if not is_kind(value, KINDS[key]):
        example = {"cache": "8GB", **dict.fromkeys(TOLERANCES, "1%")}.get(key, "2h")
        words = f", or as on the command line ('{example}')" if key in WORDS or key in TOLERANCES else ""
        kind = NUMBER if key in TOLERANCES else KINDS[key]
        raise UsageError(where, f"must be {kind}{words}, got {value!r}", hint="see `autoquant search --help`")
    if isinstance(value, str):
        return from_folder(key, value, path.parent)
    return tuple(value) if isinstance(value, list) else value


def _checked(where: str, read: Callable[[str], Any], value: Any) -> Any:
    try:
        return read(value)
    except UsageError as error:
        raise UsageError(where, error.what, hint=error.hint) from None
