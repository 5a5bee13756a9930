"""Memory that was freed goes back to the system, which the C library keeps for itself otherwise."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache
from types import MappingProxyType
from typing import Any

TENSORFLOW = MappingProxyType({"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"})
"""Environment of a process whose TensorFlow gives freed memory back; else it keeps all for itself that it ever had."""
LEAST = 1 << 25
"""Bytes that are worth looking for, which takes some tenths of a second."""


def release_memory(size: int) -> None:
    """Give back what is free, after something that held so many bytes and is not needed any more, such as a graph.

    Graphs of TensorFlow refer to themselves, so Python frees them late; and glibc keeps what it got in small pieces.
    """
    if size < LEAST:
        return
    gc.collect()
    trim_memory(size)


def trim_memory(size: int) -> None:
    """Give back what is free of what was used in passing, such as copies of parts of something of so many bytes."""
    library = _glibc() if size >= LEAST else None
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any | None:
    """The C library, where it has malloc_trim."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None


def peak_memory() -> int | None:
    """Bytes that this process has had at most; None where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
