"""Arrays of .npy and .npz files, mapped into memory: the system reads what is used, and forgets it where it must."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from autoquant.array import Array

LOCAL_HEADER = 30
"""Bytes of what a .zip has in front of a file, but for the name and extra fields, whose sizes are the last in it."""
LOCAL_MAGIC = b"PK\x03\x04"


def mapped_npy(path: Path) -> Array:
    """The array of an .npy file. Raises ValueError or OSError where it is damaged, or holds Python objects."""
    with path.open("rb") as file:
        return _mapped(path, file)


class MappedNpz(Mapping[str, Array]):
    """The arrays of an .npz file, each mapped when it is asked for; loaded where it is compressed.

    Raises ValueError, OSError or BadZipFile where the file is damaged, or the array is of Python objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    def __getitem__(self, key: str) -> Array:
        info = self._members[key]
        if info.compress_type == zipfile.ZIP_STORED:
            with self.path.open("rb") as file:
                return _stored(self.path, info, file)
        with zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
            loaded: Array = npy.read_array(stream, allow_pickle=False)
            return loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def checksums(self) -> Mapping[str, int]:
        """Of the arrays' content, as the file has them."""
        return {key: info.CRC for key, info in self._members.items()}


def _stored(path: Path, info: zipfile.ZipInfo, file: IO[bytes]) -> Array:
    """An array that is not compressed."""
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(LOCAL_MAGIC):
        raise ValueError(f"{info.filename} is not where it should be")
    name, extra = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
    file.seek(info.header_offset + LOCAL_HEADER + name + extra)
    return _mapped(path, file)


def _mapped(path: Path, file: IO[bytes]) -> Array:
    """The array whose header the file is at."""
    start, version = file.tell(), npy.read_magic(file)
    shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.hasobject or version > (2, 0) or 0 in shape or shape == ():
        file.seek(start)
        loaded: Array = npy.read_array(file, allow_pickle=False)
        return loaded
    return np.asarray(np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C"))
