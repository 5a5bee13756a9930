"""The command that repeats a search, from the table of its run.toml."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from autoquant.tuning.study.choices import default_space
from autoquant.tuning.study.places import IN_MEMORY
from autoquant.tuning.study.request import SearchRequest

FIRST = ("data", "calibration", "tolerance")
"""Options that are written first."""


def in_memory(request: Mapping[str, Any]) -> list[str]:
    """What of a request was given in Python, so that no command can."""
    return [name for name, value in request.items() if value == IN_MEMORY]


def command_of(request: Mapping[str, Any]) -> str:
    """The command line of a request, without what is the default."""
    defaults = {entry.name: entry.default for entry in fields(SearchRequest) if entry.default is not MISSING}
    defaults["space"] = default_space(request.get("target", SearchRequest.target))
    others = [name for name in request if name not in (*FIRST, "model")]
    words = ["autoquant", "search", str(request["model"])]
    for name in (*FIRST, *others):
        if name in request and request[name] != defaults.get(name):
            words += _option(name, request[name])
    return shlex.join(words)


def _option(name: str, value: Any) -> Iterator[str]:
    option = f"--{name.replace('_', '-')}"
    if name == "keep_all_models":
        yield from ("--keep-models", "all")
    elif name == "feed":
        for each in value:
            yield from (option, str(each))
    elif name == "cache":
        yield from (option, f"{value / 1e6:.6f}MB" if value else "off")
    elif isinstance(value, bool):
        yield option
    else:
        text = ",".join(map(_text, value)) if isinstance(value, list | tuple) else _text(value)
        yield from (option, text) if not text.startswith("-") else (f"{option}={text}",)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
