"""Arrays of .npy and .npz files, mapped into memory: the system reads what is used, and forgets it where it must.

What a header says is compared with what the file has before memory is taken for it: a stranger's file, or a damaged
one, may claim terabytes, or unpack to them.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from autoquant.array import Array

LOCAL_HEADER = 30
"""Bytes of what a .zip has in front of a file, but for the name and extra fields, whose sizes are the last in it."""
LOCAL_MAGIC = b"PK\x03\x04"
CHECKED = 1 << 20
"""Bytes that are read at once to be checked."""
LARGE, TIMES = 1 << 28, 100
"""A compressed array that unpacks to more bytes, and to so many times its own, is refused."""
DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""The ways in which zipfile, zlib and NumPy say that a file is damaged."""


@contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Raise ValueError for whatever says that a file is damaged."""
    try:
        yield
    except ValueError:
        raise
    except DAMAGED as error:
        raise ValueError(f"it is damaged ({error})") from error


def mapped_npy(path: Path) -> Array:
    """The array of an .npy file. Raises ValueError or OSError where it is damaged, or holds Python objects."""
    with _damage_as_value_error(), path.open("rb") as file:
        return _mapped(path, file, path.stat().st_size)


class MappedNpz(Mapping[str, Array]):
    """The arrays of an .npz file, each mapped when it is asked for; loaded where it is compressed.

    Raises ValueError or OSError where the file is damaged, an array is of Python objects, or unpacks to much more than
    it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _damage_as_value_error(), zipfile.ZipFile(path) as archive:
            self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self._mapped: dict[str, Array] = {}
        """The bytes of those that were asked for, header and all."""

    def __getitem__(self, key: str) -> Array:
        info = self._members[key]
        with _damage_as_value_error():
            if info.compress_type == zipfile.ZIP_STORED:
                with self.path.open("rb") as file:
                    start = _seek(file, info)
                    end = min(start + info.file_size, self.path.stat().st_size)
                    array = _mapped(self.path, file, end)
                    self._mapped[key] = np.memmap(self.path, np.uint8, "r", start, (end - start,))
                    return array
            with zipfile.ZipFile(self.path) as archive:
                return _unpacked(archive, info)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def check(self, keys: Iterable[str]) -> None:
        """Read the bytes of arrays that are mapped, from end to end; ValueError where they are not what was written.

        Others are checked when they are loaded.
        """
        for key in self._mapped.keys() & keys:
            checksum, content = 0, self._mapped[key]
            for start in range(0, len(content), CHECKED):
                checksum = zlib.crc32(content[start : start + CHECKED].data, checksum)
            if checksum != self._members[key].CRC:
                raise ValueError(f"Bad CRC-32 for array '{key}'")

    @property
    def checksums(self) -> Mapping[str, int]:
        """Of the arrays' content, as the file has them."""
        return {key: info.CRC for key, info in self._members.items()}


def load_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file, in memory, checksums verified. Raises as MappedNpz."""
    with _damage_as_value_error(), zipfile.ZipFile(path) as archive:
        return {info.filename.removesuffix(".npy"): _unpacked(archive, info) for info in archive.infolist()}


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """An array in memory, its checksum verified, which zipfile does only where it need not go back."""
    size, packed = info.file_size, info.compress_size
    if size > LARGE and size > TIMES * packed:
        what = f"'{info.filename}' is {packed:,} bytes that unpack to {size:,}"
        raise ValueError(f"{what}; if that is right, save it with np.savez, uncompressed, which needs no memory")
    with archive.open(info) as stream:
        shape, _, dtype = _header(stream)
        if not dtype.hasobject:  # which NumPy refuses
            _check_size(shape, dtype, size - stream.tell())
    with archive.open(info) as stream:
        loaded: Array = npy.read_array(stream, allow_pickle=False)
        return loaded


def _seek(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Go to where the content of a file begins that is not compressed; returns that place."""
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(LOCAL_MAGIC):
        raise ValueError(f"{info.filename} is not where it should be")
    name, extra = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
    return file.seek(info.header_offset + LOCAL_HEADER + name + extra)


def _mapped(path: Path, file: IO[bytes], end: int) -> Array:
    """The array whose header the file is at, and whose content ends at `end` at the latest."""
    start = file.tell()
    shape, fortran, dtype = _header(file)
    if dtype.hasobject or 0 in shape or shape == ():
        if not dtype.hasobject:
            _check_size(shape, dtype, end - file.tell())
        file.seek(start)
        loaded: Array = npy.read_array(file, allow_pickle=False)
        return loaded
    _check_size(shape, dtype, end - file.tell())
    return np.asarray(np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C"))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array; versions 2 and 3 of the format differ in the encoding of names alone."""
    version = npy.read_magic(stream)
    if version > (3, 0):
        raise ValueError(f"is of version {version} of the format, which is not known")
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = reader(stream)
    if any(side < 0 for side in shape):
        raise ValueError(f"has the shape {shape}")
    return shape, fortran, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], there: int) -> None:
    """Raise ValueError where an array needs more bytes than there are."""
    needed = math.prod(shape) * dtype.itemsize
    if needed > there:
        raise ValueError(f"its header says {needed:,} bytes, shape {shape} of {dtype}, and {max(there, 0):,} are there")
