"""Tables that installed packages extend by entry points: listed by name, imported only when a name is used."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar

from autoquant.errors import UsageError

T = TypeVar("T")
_IMPORTED: dict[str, str] = {}
"""Top-level module of an entry point that was imported -> the distribution that it is of."""


class Table(Mapping[str, T], Generic[T]):
    """Our own rows, and those of the entry points of a group; a name of ours is always ours.

    `what` is a row in words. `check` makes a row of what an entry point names, of its name and its distribution; it
    raises TypeError or ValueError for what is none. Reading a row raises UsageError that names the distribution where
    that is broken, or where two have the name.
    """

    def __init__(
        self, group: str, what: str, builtin: Mapping[str, T], check: Callable[[str, str, Any], T] | None = None
    ) -> None:
        self.group, self.what, self.builtin = group, what, MappingProxyType(dict(builtin))
        self._check = check
        self._loaded: dict[EntryPoint, T] = {}

    def __getitem__(self, name: str) -> T:
        if name in self.builtin:
            return self.builtin[name]
        entry = self._entry(name)
        if entry not in self._loaded:
            self._loaded[entry] = self._load(entry)
        return self._loaded[entry]

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in _installed(self.group)

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from (name for name in _installed(self.group) if name not in self.builtin)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def origin(self, name: str) -> str:
        """The distribution of a row and its version, 'acme-metrics 1.2'; empty for a row of ours, or none at all."""
        return "" if name in self.builtin or name not in self else _distribution(self._entry(name))

    def name_of(self, row: Any) -> str | None:
        """The name of a row; None where it is no row. Nothing is imported for that."""
        own = {**self.builtin, **{entry.name: found for entry, found in self._loaded.items()}}
        path = f"{getattr(row, '__module__', '')}:{getattr(row, '__qualname__', '')}"
        others = (name for name in self if name not in self.builtin and self._entry(name).value == path)
        return next((name for name, found in own.items() if found is row), None) or next(others, None)

    def _entry(self, name: str) -> EntryPoint:
        found = _installed(self.group)[name]
        if len(found) > 1:
            both = " and ".join(_distribution(entry) for entry in found)
            raise UsageError(f"{self.what} '{name}'", f"is of {both}", hint="uninstall all but one of them")
        return found[0]

    def _load(self, entry: EntryPoint) -> T:
        distribution = _distribution(entry)
        try:
            _IMPORTED[entry.module.partition(".")[0]] = distribution
            found = entry.load()
            return found if self._check is None else self._check(entry.name, distribution, found)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = next((f" ({f.filename}:{f.lineno})" for f in reversed(frames) if _is_of(f.filename, entry)), "")
            what = f"cannot be loaded from {entry.value}: {type(error).__name__}: {error}{place}"
            hint = f"it is a fault of {distribution}: update or uninstall it"
            raise UsageError(f"{self.what} '{entry.name}' of {distribution}", what, hint=hint) from error


def at_fault(error: BaseException) -> str:
    """The distribution of an extension that an exception came through; empty where it came through none."""
    trace: TracebackType | None = error.__traceback__
    found = ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        found = _IMPORTED.get(module.partition(".")[0], found)
        trace = trace.tb_next
    return found


@cache
def _installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name, in the order of the names."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return MappingProxyType(found)


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"


def _is_of(file: str, entry: EntryPoint) -> bool:
    """Whether a file seems to be of the top-level module of an entry point."""
    top = entry.module.partition(".")[0]
    return f"/{top}/" in file.replace("\\", "/") or file.endswith(f"{top}.py")
