"""Options as people write them, on the command line and in Python: '2h', '8GB', 'a,b', each read or refused by name."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from autoquant.errors import UsageError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
_NUMBER = r"(\d+(?:\.\d+)?)"
_SIZE = re.compile(rf"{_NUMBER} ?([MGT])B?")
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?|{_NUMBER}")


def seconds(text: str) -> float:
    """Read a time: '90' and '90s' are seconds; '30m', '2h', '1h30m'. Raises UsageError.

    >>> seconds("1h30m")
    5400.0
    """
    parts = _DURATION.fullmatch(text)
    if parts is None or not text:
        raise UsageError("--timeout", f"cannot read '{text}'", hint="give seconds, or for example 90s, 30m, 2h, 1h30m")
    return sum(float(part or 0) * size for part, size in zip(parts.groups(), (3600, 60, 1, 1), strict=True))


def size(text: str) -> int:
    """Read a number of bytes: '500MB', '8GB', '1.5TB'; 0 is 'off'. Raises UsageError.

    >>> size("8GB"), size("off")
    (8000000000, 0)
    """
    if text == "off":
        return 0
    parts = _SIZE.fullmatch(text.upper())
    if parts is None or not float(parts[1]):
        raise UsageError("--cache", f"cannot read '{text}'", hint="give for example 500MB or 8GB, or off")
    return int(float(parts[1]) * {"M": 1e6, "G": 1e9, "T": 1e12}[parts[2]])


def names(text: str) -> Sequence[str]:
    """Read names separated by commas. Raises UsageError where one is empty.

    >>> names("a, b:0")
    ('a', 'b:0')
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise UsageError("--inputs, --outputs", f"a name is empty in '{text}'", hint="for example --outputs a,b")
    return found


def image_size(text: str) -> tuple[int, int]:
    """Read 'height,width'. Raises UsageError.

    >>> image_size("96,128")
    (96, 128)
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError("--image-size", f"cannot read '{text}'", hint="give height and width, for example 224,224")
    return int(parts[0]), int(parts[1])


class NotOfThisKind(Exception):
    """A value is not what an option takes, which `args` says in words."""


def _is_flag(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # NumPy's too, which is not imported for that


def whole(value: Any) -> int:
    """Read a whole number."""
    try:
        if not _is_flag(value):
            return int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        pass
    raise NotOfThisKind("a whole number")


def _number(value: Any) -> float:
    try:
        return float("" if _is_flag(value) else value)
    except (TypeError, ValueError):
        raise NotOfThisKind("a number") from None


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        return seconds(value)
    try:
        return _number(value)
    except NotOfThisKind:
        raise NotOfThisKind("seconds, or a time such as '90s', '30m' or '2h'") from None


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return size(value)
    try:
        return whole(value)
    except NotOfThisKind:
        raise NotOfThisKind("a number of bytes, or a size such as '500MB', '8GB' or 'off'") from None


def _flag(value: Any) -> bool:
    if not _is_flag(value):
        raise NotOfThisKind("True or False")
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotOfThisKind("a text")
    return value


def path(value: Any) -> str | Path:
    """Read a path."""
    if not isinstance(value, str | os.PathLike):
        raise NotOfThisKind("a path")
    return value if isinstance(value, str) else Path(value)


def anything(value: Any) -> Any:
    """Whatever has a reader of its own, further on."""
    return Path(value) if isinstance(value, os.PathLike) else value


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(names(value))
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise NotOfThisKind("a list of names, or a text such as 'a,b'")
    return tuple(value)


def _feed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    try:
        return (value,) if isinstance(value, str) else _names(value)
    except NotOfThisKind:
        raise NotOfThisKind("a mapping such as {'is_training': False}, or texts such as 'is_training=false'") from None


def _numbers(value: Any) -> Any:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list | tuple):
        plain = tuple(map(_number, plain))
    elif not isinstance(plain, str):
        plain = _number(plain)
    return plain


def _image_size(value: Any) -> Any:
    if isinstance(value, str):
        return image_size(value)
    try:
        height, width = map(whole, value)
    except (TypeError, ValueError, NotOfThisKind):
        raise NotOfThisKind("height and width, such as (224, 224) or '224,224'") from None
    return height, width


def _function(value: Any) -> Any:
    if not callable(value):
        raise NotOfThisKind("a function")
    return value


def _named_function(value: Any) -> Any:
    if not isinstance(value, str) and not callable(value):
        raise NotOfThisKind("a name, or a function")
    return value


def _tolerance(value: Any) -> Any:
    if _is_flag(value) or (isinstance(value, Sequence | Mapping) and not isinstance(value, str)):
        raise NotOfThisKind("a number such as 0.005, or a percentage such as '1%'")
    return value


READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        **dict.fromkeys(("model", "models", "data", "calibration", "certify", "samples"), anything),
        **dict.fromkeys(("run", "to", "config", "record", "space", "junit"), path),
        **dict.fromkeys(("target", "engine", "io", "objective", "sampler", "signature", "unit", "guard"), _text),
        **dict.fromkeys(("storage", "study", "artifacts", "profile"), _text),
        **dict.fromkeys(("max_trials", "seed", "label_offset", "batch_size", "trial", "threads", "repeat"), whole),
        "jobs": whole,
        **dict.fromkeys(("error_rate", "confidence", "min_baseline", "min_speedup"), _number),
        **dict.fromkeys(("timeout", "trial_timeout", "idle"), _seconds),
        **dict.fromkeys(("isolate", "stop_on_target", "keep_all_models"), _flag),
        **dict.fromkeys(("allow_overlap", "trust_model", "simulation", "integer_only"), _flag),
        **dict.fromkeys(("inputs", "outputs", "accept_changed"), _names),
        **dict.fromkeys(("scale", "mean", "std"), _numbers),
        **dict.fromkeys(("metric", "preprocess"), _named_function),
        **dict.fromkeys(("tolerance", "guard_tolerance"), _tolerance),
        **dict.fromkeys(("listener", "clock"), _function),
        "cache": _bytes,
        "keep_models": whole,
        "feed": _feed,
        "image_size": _image_size,
    }
)
"""Option of a public function -> what reads its value, or raises UsageError or NotOfThisKind."""


def reads_options(*more: type, **readers: Callable[[Any], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a public function take options as the command line does, and name what it cannot take.

    `more` are the TypedDicts or dataclasses of the options that stand behind `**`, `readers` what reads some otherwise.
    None is the default, of data it is no data. Raises UsageError for an option that there is not, of a wrong type, or
    missing.
    """
    table = {**READERS, **readers}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        declared = signature(function)
        known = [name for name, one in declared.parameters.items() if one.kind is not Parameter.VAR_KEYWORD]
        known += [name for kind in more for name in getattr(kind, "__dataclass_fields__", kind.__annotations__)]
        where = f"autoquant.{function.__name__}()"

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    hint = did_you_mean(name, known, otherwise=f"see help(autoquant.{function.__name__})")
                    raise UsageError(where, f"there is no option {name}", hint=hint)
            given = {name: one for name, one in kwargs.items() if one is not None or table.get(name) is anything}
            try:
                bound = declared.bind(*args, **given)
            except TypeError as error:
                raise UsageError(where, str(error), hint=f"see help(autoquant.{function.__name__})") from None
            for name, value in bound.arguments.items():
                kind, default = declared.parameters[name].kind, declared.parameters[name].default
                if value is None and default is not Parameter.empty:
                    bound.arguments[name] = default
                elif kind is Parameter.VAR_KEYWORD:
                    bound.arguments[name] = {key: _read(table, key, one) for key, one in value.items()}
                elif kind is Parameter.VAR_POSITIONAL:
                    bound.arguments[name] = tuple(_read(table, name, one) for one in value)
                else:
                    bound.arguments[name] = _read(table, name, value)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _read(table: Mapping[str, Callable[[Any], Any]], name: str, value: Any) -> Any:
    try:
        return table.get(name, anything)(value)
    except NotOfThisKind as error:
        shown = repr(value) if len(repr(value)) < 60 else "a value"
        raise UsageError(name, f"must be {error}, got {shown} ({type(value).__name__})") from None
