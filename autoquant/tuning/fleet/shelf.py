"""Files that an owner gives its workers through the storage of their study, in pieces that every database takes.

They are system attributes of Optuna's: what shows studies to people, as optuna-dashboard does, reads the user's of all.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from contextlib import suppress

from autoquant.errors import RunError
from autoquant.tuning.fleet.board import open_beside
from autoquant.tuning.study.patient_storage import PatientStorage

SUFFIX = "-files"
"""What follows the name of a search's study in that of its files."""
PIECE = 45_000
"""Bytes of a piece: MySQL has 65,535 characters for an attribute, and base64 makes a third more of them."""


class Shelf:
    """Contents by their SHA-256, as attributes of a study of Optuna: one that is not whole yet is not there."""

    def __init__(self, storage: PatientStorage, study: str) -> None:
        self._storage = storage
        self._name = f"{study}{SUFFIX}"
        self._purpose = f"files of {study} that its workers need"
        self._there: set[str] = set()

    def put(self, content: bytes) -> str:
        """Store a content, unless it is there; gives its SHA-256, in hex."""
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._there:
            study = open_beside(self._storage, self._name, self._purpose)
            packed = zlib.compress(content, 1)
            pieces = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
            with self._storage.together():
                for number, piece in enumerate(pieces):
                    text = base64.b64encode(piece).decode("ascii")
                    self._storage.set_study_system_attr(study, f"{digest}/{number}", text)
                self._storage.set_study_system_attr(study, digest, len(pieces))
            self._there.add(digest)
        return digest

    def get(self, *digests: str) -> list[bytes]:
        """The contents of these. Raises RunError where one is not there, or is another."""
        found = {}
        if digests:
            with suppress(KeyError):
                found = self._storage.get_study_system_attrs(self._storage.get_study_id_from_name(self._name))
        return [_content(digest, found) for digest in digests]


def _content(digest: str, found: dict[str, object]) -> bytes:
    try:
        pieces = [str(found[f"{digest}/{number}"]) for number in range(int(str(found[digest])))]
        content = zlib.decompress(b"".join(map(base64.b64decode, pieces)))
    except (KeyError, ValueError, zlib.error):
        raise RunError("storage", f"does not have the file of SHA-256 {digest}", hint="resume the search") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise RunError("storage", f"the file of SHA-256 {digest} was changed there", hint="resume the search")
    return content
