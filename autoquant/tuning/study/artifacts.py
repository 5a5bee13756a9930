"""Where workers of other disks leave the files of what may be the best: a directory that all of them have, or S3.

Nothing depends on it: what is not there, or is not what it was to be, is built again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, urlsplit

from autoquant.errors import RunError, UsageError
from autoquant.files import digests_of, sha256_of, writing, written_whole
from autoquant.messages import reason

S3 = "s3://"
OPTION = "--artifacts"
EXAMPLE = "s3://bucket/prefix, or a directory that all machines have"
SUFFIX = "-artifacts"
"""What follows the name of a search's study in that of its part of the place."""
CONNECT_SECONDS = 10
PIECE = 1 << 20
"""Bytes that are read at a time."""


class Store(Protocol):
    """Contents by key. A content that is not whole yet is not there."""

    def make(self) -> None:
        """See that there can be any, before the first."""
        ...

    def write(self, key: str, content: BinaryIO) -> None:
        """Store a content."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A content, to read."""
        ...

    def listed(self) -> list[str]:
        """The keys of all that there are, and of what was never whole."""
        ...

    def remove(self, key: str) -> None:
        """Remove a content."""
        ...


class Artifacts:
    """The files of the trials of a study, by trial and SHA-256.

    All raise RunError where the place cannot be reached, or refuses.
    """

    def __init__(self, place: str, study: str) -> None:
        self.place = place
        name = f"{quote(study, safe='')}{SUFFIX}"
        with _reached(place):
            self._store: Store = _bucket(place, name) if place.startswith(S3) else Directory(Path(place) / name)

    def make(self) -> None:
        """See that files can be stored, before the first."""
        with _reached(self.place):
            self._store.make()

    def put(self, trial: int, paths: Iterable[Path]) -> dict[str, str]:
        """Store files of a trial; gives their SHA-256, in hex, by name."""
        digests: dict[str, str] = {}
        for path in paths:
            digests |= digests_of([path])
            with _reached(self.place), path.open("rb") as file:
                self._store.write(_key(trial, digests[path.name]), file)
        return digests

    def take(self, trial: int, files: Mapping[str, str], folder: Path) -> None:
        """Write files of a trial into a folder; raises RunError too for the first that does not have its SHA-256."""
        for name, digest in files.items():
            with written_whole(folder / name) as temporary:
                with temporary.open("wb") as made:
                    made.writelines(self._read(_key(trial, digest), f"{name} of trial {trial}"))
                if sha256_of(temporary) != digest:
                    raise RunError(self.place, f"{name} of trial {trial} was changed there (another SHA-256)")

    def keep(self, is_wanted: Callable[[int], bool]) -> None:
        """Remove the files of all trials but those that are wanted, by number."""
        with _reached(self.place):
            for key in self._store.listed():
                number = key.lstrip(".").partition("-")[0]
                if number.isdecimal() and not is_wanted(int(number)):
                    self._store.remove(key)

    def _read(self, key: str, what: str) -> Iterator[bytes]:
        from optuna.artifacts.exceptions import ArtifactNotFound

        with _reached(self.place):
            try:
                with self._store.open(key) as source:
                    while piece := source.read(PIECE):
                        yield piece
            except ArtifactNotFound:
                raise RunError(self.place, f"{what} is not there") from None


class Directory:
    """A directory, which nobody but the owner makes: where a disk is not mounted there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _files(self) -> Any:
        from optuna.artifacts import FileSystemArtifactStore

        return FileSystemArtifactStore(self._path)

    def make(self) -> None:
        """As Store has it."""
        with writing(self._path):
            self._path.mkdir(parents=True, exist_ok=True)

    def write(self, key: str, content: BinaryIO) -> None:
        """As Store has it."""
        if not self._path.is_dir():
            raise RunError(str(self._path), "is not there", hint="is the disk mounted on this machine?")
        with written_whole(self._path / key) as temporary:
            self._files.write(temporary.name, content)

    def open(self, key: str) -> BinaryIO:
        """As Store has it."""
        content: BinaryIO = self._files.open_reader(key)
        return content

    def listed(self) -> list[str]:
        """As Store has it."""
        return sorted(path.name for path in self._path.iterdir()) if self._path.is_dir() else []

    def remove(self, key: str) -> None:
        """As Store has it."""
        (self._path / key).unlink(missing_ok=True)


class Bucket:
    """A part of a bucket of S3, by a client of boto3, which has credentials, region and endpoint by its own ways."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        from optuna.artifacts import Boto3ArtifactStore

        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._objects = Boto3ArtifactStore(
            bucket, client, avoid_buf_copy=True
        )  # a model needs no second place in memory

    def make(self) -> None:
        """As Store has it."""
        self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def write(self, key: str, content: BinaryIO) -> None:
        """As Store has it."""
        self._objects.write(f"{self._prefix}{key}", content)

    def open(self, key: str) -> BinaryIO:
        """As Store has it."""
        return self._objects.open_reader(f"{self._prefix}{key}")

    def listed(self) -> list[str]:
        """As Store has it."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return [found["Key"].removeprefix(self._prefix) for page in pages for found in page.get("Contents", ())]

    def remove(self, key: str) -> None:
        """As Store has it."""
        self._objects.remove(f"{self._prefix}{key}")


def open_artifacts(place: str, study: str, warn: Callable[[str], None]) -> Artifacts | None:
    """The artifacts of a study, if they have a place; where this machine cannot reach any, that is told."""
    try:
        return Artifacts(place, study) if place else None
    except RunError as error:
        warn(f"the best models are built again: {error}")
        return None


def check_place(text: str) -> None:
    """Raise UsageError where a text is no place for artifacts; no credentials are in that."""
    if "://" not in text:
        return
    url = urlsplit(text)
    if "@" in url.netloc or url.query:
        hint = "leave them out: boto3 takes them from its environment variables, ~/.aws or the machine's role"
        raise UsageError(
            OPTION, "has credentials, or options, which lists of processes and files would show", hint=hint
        )
    if not text.startswith(S3) or not url.netloc:
        raise UsageError(f"{OPTION} {text}", "is no place for artifacts", hint=f"give {EXAMPLE}")


def _bucket(place: str, name: str) -> Bucket:
    if importlib.util.find_spec("boto3") is None:
        raise RunError(place, "boto3 is not installed here", hint="pip install 'autoquant[s3]'")
    import boto3
    from botocore.config import Config

    url = urlsplit(place)
    config = Config(connect_timeout=CONNECT_SECONDS, retries={"mode": "standard"})
    prefix = "/".join(filter(None, [url.path.strip("/"), name]))
    return Bucket(boto3.client("s3", config=config), url.netloc, f"{prefix}/")


def _key(trial: int, digest: str) -> str:
    return f"{trial:04d}-{digest}"


@contextmanager
def _reached(place: str) -> Iterator[None]:
    """Raise RunError, which names the place, for what a store raises: boto3 has errors of many families."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        hint = "see that this machine has it, and may read and write there"
        raise RunError(place, f"cannot be used ({reason(error)})", hint=hint) from error
