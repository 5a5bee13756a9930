"""Objects of the user's own: whether they can do what they are called for, seen before anything else is done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autoquant.errors import UsageError


def check_object(argument: str, given: Any, methods: Iterable[str], *, base: str) -> None:
    """Raise UsageError for a class instead of an object, and for an object that lacks one of the methods."""
    if isinstance(given, type):
        raise UsageError(argument, f"{given.__name__} is a class", hint=f"give an object of it: {given.__name__}()")
    for method in methods:
        if not callable(getattr(given, method, None)):
            what = f"{type(given).__name__} has no method {method}()"
            raise UsageError(argument, what, hint=f"derive it from {base}")
