"""Reads an HDF5 file in a process of its own: its library loops for ever, or crashes, on some that are damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from autoquant.errors import ModelError
from autoquant.model.model import WHOLE

SECONDS, PER_SECOND = 30.0, 20_000_000
"""The time that a file may take: so many seconds, and one more for so many bytes."""
LARGE, TIMES = 1 << 28, 100
"""Values that take more bytes, and so many times what the file has of them, are refused."""


def check_hdf5(path: Path) -> None:
    """Raise ModelError where a file cannot be read to its end."""
    command = [sys.executable, "-m", __name__, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    seconds = SECONDS + path.stat().st_size / PER_SECOND
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(str(path), f"cannot be read: HDF5 did not end within {seconds:.0f} s", hint=WHOLE) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"its process died ({done.returncode})"]
        raise ModelError(str(path), f"HDF5 cannot read it: {last[0]}", hint=WHOLE)


def read_everything(path: Path) -> None:
    """Read all attributes and values. Raises whatever h5py does, ValueError for values that the file has not."""
    import h5py  # type: ignore[import-untyped]  # it has no types

    def read(name: str, item: Any) -> None:
        dict(item.attrs)
        if isinstance(item, h5py.Dataset):
            stored = item.id.get_storage_size()
            if item.nbytes > LARGE and item.nbytes > TIMES * stored:
                raise ValueError(f"'{name}' is {item.nbytes:,} bytes by its shape, of which the file has {stored:,}")
            item[()]

    with h5py.File(path, "r") as file:
        dict(file.attrs)
        file.visititems(read)


if __name__ == "__main__":
    read_everything(Path(sys.argv[1]))
