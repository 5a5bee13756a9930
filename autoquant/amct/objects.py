"""Objects by name or of the user's own, and whether those can do what they are called for, before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from autoquant.errors import UsageError, did_you_mean


def check_object(argument: str, given: Any, methods: Iterable[str], *, base: str) -> None:
    """Raise UsageError for a class instead of an object, and for an object that lacks one of the methods."""
    if isinstance(given, type):
        raise UsageError(argument, f"{given.__name__} is a class", hint=f"give an object of it: {given.__name__}()")
    for method in methods:
        if not callable(getattr(given, method, None)):
            what = f"{type(given).__name__} has no method {method}()"
            raise UsageError(argument, what, hint=f"derive it from {base}")


def by_name_or_own(
    argument: str, given: Any, known: Mapping[str, Callable[[], Any]], methods: Iterable[str], *, base: str
) -> Any:
    """A new object of a known name, or of its class, whose name ends with the argument's; or the user's own, checked.

    Raises UsageError.
    """
    if not isinstance(given, str):
        check_object(argument, given, methods, base=base)
        return given
    named = given.removesuffix(argument.capitalize())
    if named not in known:
        hint = did_you_mean(given, known, otherwise=f"it can be {', '.join(known)}, or an object of your own")
        raise UsageError(argument, f"unknown '{given}'", hint=hint)
    return known[named]()
