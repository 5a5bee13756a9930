from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from autoquant.errors import RunError
from autoquant.tuning.fleet.shelf import PIECE, Shelf
from autoquant.tuning.study.patience import Patience
from autoquant.tuning.study.patient_storage import PatientStorage


def shelf(storage: InMemoryStorage) -> Shelf:
    return Shelf(PatientStorage(storage, Patience("db"), lambda error: False), "night")


@given(st.lists(st.binary(max_size=200)))
def test_contents_come_back_by_their_sha256(contents: list[bytes]) -> None:
    storage = InMemoryStorage()
    digests = [shelf(storage).put(content) for content in contents]
    assert digests == [hashlib.sha256(content).hexdigest() for content in contents]
    assert shelf(storage).get(*digests) == contents


def test_a_large_content_is_in_pieces_that_every_database_takes() -> None:
    storage = InMemoryStorage()
    content = b"".join(hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(8000))
    digest = shelf(storage).put(content)
    attributes = storage.get_study_system_attrs(storage.get_study_id_from_name("night-files"))
    assert attributes[digest] >= len(content) // PIECE >= 5, "it cannot be compressed"
    assert max(len(value) for key, value in attributes.items() if "/" in key) < 65_535
    assert shelf(storage).get(digest) == [content]


@pytest.mark.parametrize("damage", ["missing", "changed", "half"])
def test_what_is_not_whole_is_refused(damage: str) -> None:
    storage = InMemoryStorage()
    one, other = shelf(storage).put(b"one" * 100), shelf(storage).put(b"other" * 100)
    study = storage.get_study_id_from_name("night-files")
    attributes = storage.get_study_system_attrs(study)
    if damage == "changed":
        storage.set_study_system_attr(study, f"{one}/0", attributes[f"{other}/0"])
    elif damage == "half":
        storage.set_study_system_attr(study, f"{one}/0", attributes[f"{one}/0"][:8])
    wanted = "0" * 64 if damage == "missing" else one
    with pytest.raises(RunError, match=r"does not have the file|was changed there"):
        shelf(storage).get(wanted)
    assert shelf(storage).get(other) == [b"other" * 100]
