"""Arguments of AMCT's functions, checked before the work: names of outputs, where files go, the user's own objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoquant.errors import UsageError, did_you_mean
from autoquant.files import writing

Names = Sequence[str] | NDArray[np.str_]
"""Names of tensors or layers."""


def output_names(outputs: Names | str) -> tuple[str, ...]:
    """Names of output tensors from a list, or from one text with ';' between them.

    Raises UsageError for none, and for what is not a name.
    """
    given: Any = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    names = given.split(";") if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        what = f"expected names of tensors, got {shorten(repr(outputs), 100)}"
        raise UsageError("outputs", what, hint='give a list of texts, such as ["logits:0"]')
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise UsageError("outputs", "no output is named", hint='give names of tensors, such as ["logits:0"]')
    return found


def save_prefix(save_path: str | Path) -> Path:
    """A prefix of files' names. Raises UsageError where it is that of a folder."""
    if not Path(save_path).name or str(save_path).endswith(("/", "\\")):
        raise UsageError("save_path", f"'{save_path}' names a folder", hint="give a prefix, such as outputs/mobilenet")
    return Path(save_path)


def output_path(path: str | Path) -> Path:
    """The path in full, its folder made, as AMCT does; a file that is there is overwritten later. Raises RunError."""
    full = Path(path).absolute()
    with writing(full.parent):
        full.parent.mkdir(parents=True, exist_ok=True)
    return full


def check_writable(path: Path) -> None:
    """Raise RunError where no file can be written beside this one."""
    with writing(path.parent), TemporaryFile(dir=path.parent):
        pass


def check_object(argument: str, value: Any, methods: Iterable[str], *, base: str) -> None:
    """Raise UsageError for a class instead of an object, and for an object that lacks one of the methods."""
    if isinstance(value, type):
        raise UsageError(argument, f"{value.__name__} is a class", hint=f"give an object of it: {value.__name__}()")
    for method in methods:
        if not callable(getattr(value, method, None)):
            what = f"{type(value).__name__} has no method {method}()"
            raise UsageError(argument, what, hint=f"derive it from {base}")


def by_name_or_own(
    argument: str, value: Any, known: Mapping[str, Callable[[], Any]], methods: Iterable[str], *, base: str
) -> Any:
    """A new object of a known name, or of its class, whose name ends with the argument's; or the user's own, checked.

    Raises UsageError.
    """
    if not isinstance(value, str):
        check_object(argument, value, methods, base=base)
        return value
    name = value.removesuffix(argument.capitalize())
    if name not in known:
        hint = did_you_mean(value, known, otherwise=f"it can be {', '.join(known)}, or an object of your own")
        raise UsageError(argument, f"unknown '{value}'", hint=hint)
    return known[name]()


def not_overridden(value: Any, method: str, *, hint: str = "override it in its class") -> UsageError:
    """What a base raises for a method that the user's class does not override."""
    return UsageError(type(value).__name__, f"has no {method} of its own", hint=hint)
