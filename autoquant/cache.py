"""Cache files: what a run computes once, as arrays with a header, under a key that says of what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoquant.files import written_whole
from autoquant.npz import load_npz


@dataclass(frozen=True)
class CacheEntry:
    """Arrays by name, and facts that JSON can hold."""

    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def write_cache(path: Path, entry: CacheEntry, *, key: str, version: int) -> None:
    """Write an .npz, whole or not at all, without compression: that takes longer than to compute some of it again.

    Raises RunError when it cannot be written.
    """
    header = json.dumps({"key": key, "version": version, "facts": dict(entry.header), "arrays": _forms(entry.arrays)})
    size = sum(array.nbytes for array in entry.arrays.values())
    with written_whole(path, size=size) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, header=np.array(header), **entry.arrays)


def read_cache(path: Path, *, key: str, version: int) -> CacheEntry | None:
    """What `write_cache` wrote, or None when it is not there, damaged, or of another key or version.

    None means: compute it again. Nothing but time is lost by that.
    """
    try:
        arrays = load_npz(path)
        header = json.loads(str(arrays.pop("header")))
        if header["key"] != key or header["version"] != version or header["arrays"] != _forms(arrays):
            return None
        return CacheEntry(header["facts"], arrays)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _forms(arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Type and shape of each array: the checksums of an .npz are of contents, and not of their names."""
    return {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}


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
