"""Reading objects strictly: every key is known, of the right kind, and in range, or the error says where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from autoquant.errors import InputError, PlanError, did_you_mean

T = TypeVar("T")


class Fields:
    """One object of a file, at `where`; take what is known, then `done()` refuses the rest."""

    def __init__(self, value: object, where: str, error: type[InputError]) -> None:
        if not isinstance(value, Mapping):
            raise error(where, f"expected an object, got {value!r}", hint="see the README for an example")
        self._left: dict[str, Any] = dict(value)
        self.where = where
        self._error = error
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Whether `key` is there and was not taken yet."""
        return key in self._left

    def take(self, key: str, default: T) -> T:
        """The value of `key`, which must be of the default's type (a whole number may stand for a float)."""
        value = self.optional(key, type(default), hint=f"for example {default!r}")
        return default if value is None else value

    def optional(self, key: str, kind: type[T], *, hint: str = "correct the value, or leave it out") -> T | None:
        """The value of `key`, which must be of this kind (a whole number may stand for a float); None without it."""
        self._known.append(key)
        if key not in self._left:
            return None
        return self.checked(key, self._left.pop(key), kind, hint=hint)

    def needed(self, key: str, kind: type[T]) -> T:
        """The value of `key`, which must be there."""
        value = self.optional(key, kind)
        if value is None:
            raise self.error(key, f"is missing, expected {kind.__name__}", hint=f'add "{key}"')
        return value

    def checked(self, key: str, value: Any, kind: type[T], *, hint: str = "correct the value, or leave it out") -> T:
        """A value that stands under `key`, which must be of this kind (a whole number may stand for a float)."""
        found = as_float(value) if kind is float else value
        if type(found) is not kind:
            raise self.error(key, f"expected {kind.__name__}, got {value!r}", hint=hint)
        return found

    def raw(self, key: str) -> Any:
        """The value of `key` as it is, None when it is not there."""
        self._known.append(key)
        return self._left.pop(key, None)

    def sub(self, key: str) -> Fields:
        """The object under `key`, empty when it is not there."""
        self._known.append(key)
        return self.nested(self._left.pop(key, {}), key)

    def nested(self, value: object, key: str) -> Fields:
        """Any object, read as if it stood under `key`."""
        return Fields(value, f"{self.where}.{key}", self._error)

    def rest(self) -> Mapping[str, Any]:
        """All that was not taken yet."""
        left, self._left = self._left, {}
        return left

    def only(self, key: str, allowed: Iterable[T], default: T) -> T:
        """The value of `key`, which must be one of `allowed`."""
        return self.chosen(key, self.take(key, default), allowed)

    def chosen(self, key: str, value: Any, allowed: Iterable[T]) -> T:
        """A value that stands under `key`, which must be one of `allowed`."""
        found: T = value
        choices = list(allowed)
        if found not in choices:
            near = get_close_matches(str(value), map(str, choices), n=1)
            hint = f"try '{near[0]}'" if near else "it can be " + ", ".join(map(str, choices))
            raise self.error(key, f"unknown {value!r}", hint=hint)
        return found

    def build(self, make: Callable[[], T]) -> T:
        """Make a value that checks itself, and tell where a ValueError came from."""
        try:
            return make()
        except (ValueError, OverflowError) as error:
            raise self._error(self.where, str(error), hint="correct the value") from None

    def require(self, right: bool, key: str, what: str, *, hint: str) -> None:
        """Raise for a key whose value is not right."""
        if not right:
            raise self.error(key, what, hint=hint)

    def error(self, key: str, what: str, *, hint: str) -> InputError:
        """An error at one key."""
        return self._error(f"{self.where}.{key}", what, hint=hint)

    def done(self) -> None:
        """Raise for the first key that nobody took."""
        for key in self._left:
            hint = did_you_mean(key, self._known, otherwise="known are " + ", ".join(sorted(self._known)))
            raise self.error(key, "unknown key", hint=hint)


def as_float(value: Any) -> Any:
    """A whole number as a float where that is exact, anything else as it is."""
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for json.loads as object_pairs_hook; raises ValueError for a key that appears twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"the key '{twice}' appears twice")
    return found


def json_object(text: str, where: str, error: type[InputError], *, hint: str) -> Fields:
    """The object that a JSON text of the file `where` is.

    Raises `error` where it is none, has a key twice, or has NaN or infinity, which are no JSON.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_number)
    except (ValueError, RecursionError) as wrong:
        raise error(where, f"is not valid JSON: {wrong}", hint=hint) from None
    return Fields(found, f"{where}:$", error)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def load_object(path: Path, error: type[InputError], *, hint: str) -> Fields:
    """The object in a JSON file. Raises `error` as `json_object`, and where the file cannot be read."""
    return json_object(read_text(path, hint=hint, error=error), str(path), error, hint=hint)


def read_text(path: Path, *, hint: str, error: type[InputError] = PlanError) -> str:
    """The text of a UTF-8 file, without the byte order mark that editors on Windows put first. Raises `error`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as wrong:
        raise error(str(path), f"cannot be read ({wrong})", hint=hint) from None
