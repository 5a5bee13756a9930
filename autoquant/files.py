"""Files written whole: a temporary file beside the target, then a rename; and the digests of files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from autoquant.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise RunError, which names the path, where the system refuses what is done to it within."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def written_whole(path: Path, *, size: int = 0) -> Iterator[Path]:
    """Give a temporary path to write; it takes the name `path` only when everything was written and flushed.

    `size` are the bytes that are to be written, where that is known. Raises RunError when the disk is full, read-only
    or otherwise refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)  # first: what is free is told
        raise unwritable(path, error, size=size) from error
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # what could not be written need not be there to remove
        temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path, size=len(content)) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of each file, in hex, by its name."""
    return {path.name: sha256_of(path) for path in paths}


def changed_files(folder: Path, digests: Mapping[str, str]) -> tuple[str, ...]:
    """The names of files that are not in a folder, or that have another SHA-256 there."""
    return tuple(
        name for name, digest in digests.items() if not (folder / name).is_file() or sha256_of(folder / name) != digest
    )


def unwritable(path: Path, error: OSError, *, size: int = 0) -> RunError:
    """What to tell about a path that cannot be written; where the disk is full, how much is missing."""
    what, hint = f"cannot be written ({error.strerror or error})", "free the disk, or choose another folder"
    if error.errno in _FULL:
        free = _free(path)
        needed = f"it takes {_megabytes(size)}, and " if size else ""
        hint = f"{needed}{_megabytes(free)} are free: free the disk, or choose another folder"
    return RunError(str(path), what, hint=hint)


def _free(path: Path) -> int:
    """Bytes that are free where a path is, or is to be."""
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    return shutil.disk_usage(there).free


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
