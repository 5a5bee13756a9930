"""Cache files: what a run computes once, as arrays with a header, under a key that says of what."""

from __future__ import annotations

import hashlib
import json
import tokenize
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from autoquant.files import written_whole

DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""The ways in which zipfile, zlib, NumPy and json say that a file is damaged or not there."""


@dataclass(frozen=True)
class CacheEntry:
    """Arrays by name, and facts that JSON can hold."""

    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def write_cache(path: Path, entry: CacheEntry, *, key: str, version: int) -> None:
    """Write an .npz, whole or not at all, without compression: that takes longer than to compute some of it again.

    Raises RunError when it cannot be written.
    """
    header = json.dumps({"key": key, "version": version, "facts": dict(entry.header)})
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, header=np.array(header), **entry.arrays)


def read_cache(path: Path, *, key: str, version: int) -> CacheEntry | None:
    """What `write_cache` wrote, or None when it is not there, damaged, or of another key or version.

    None means: compute it again. Nothing but time is lost by that.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            if header["key"] != key or header["version"] != version:
                return None
            return CacheEntry(header["facts"], {name: stored[name] for name in stored.files if name != "header"})
    except DAMAGED:
        return None


def cached(path: Path | None, compute: Callable[[], CacheEntry], *, key: str, version: int) -> CacheEntry:
    """What the cache has under a key, or what is computed now and written there; without a path only computed."""
    entry = None if path is None else read_cache(path, key=key, version=version)
    if entry is None:
        entry = compute()
        if path is not None:
            path.parent.mkdir(exist_ok=True)
            write_cache(path, entry, key=key, version=version)
    return entry


def digest_of(*facts: object) -> str:
    """A key made of facts: SHA-256, in hex."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()
