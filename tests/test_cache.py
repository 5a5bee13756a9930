"""Arrays cached under a key: read back whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoquant.cache import CacheEntry, cached, read_cache, write_cache
from autoquant.errors import RunError

ENTRY = CacheEntry(
    {"names": ["a", "ü"], "value": 0.1}, {"a": np.arange(6.0).reshape(2, 3), "b/0": np.zeros(0, np.int8)}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_cache(tmp_path / "cache.npz", ENTRY, key="k", version=1)
    return tmp_path / "cache.npz"


def test_round_trip(file: Path) -> None:
    found = read_cache(file, key="k", version=1)
    assert found is not None
    assert found.header == ENTRY.header
    assert found.arrays.keys() == ENTRY.arrays.keys()
    for name, array in ENTRY.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


def test_nothing_stale(file: Path) -> None:
    assert read_cache(file, key="other", version=1) is None
    assert read_cache(file, key="k", version=2) is None
    assert read_cache(file.with_name("absent.npz"), key="k", version=1) is None


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_a_damaged_file_is_never_used(file: Path, data: Any) -> None:
    """Bytes changed or cut off: either it cannot be told, or what is read is what was written."""
    write_cache(file, ENTRY, key="k", version=1)
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    found = read_cache(file, key="k", version=1)
    if found is not None:
        assert found.header == ENTRY.header
        for name in found.arrays.keys() & ENTRY.arrays.keys():
            np.testing.assert_array_equal(found.arrays[name], ENTRY.arrays[name])


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        write_cache(tmp_path / "absent" / "cache.npz", ENTRY, key="k", version=1)


def test_an_entry_is_computed_once_for_a_key(tmp_path: Path) -> None:
    computed: list[str] = []

    def entry(key: str) -> CacheEntry:
        def compute() -> CacheEntry:
            computed.append(key)
            return CacheEntry({"key": key}, {})

        return cached(tmp_path / "folder" / "cache.npz", compute, key=key, version=1)

    assert [entry(key).header["key"] for key in ("a", "a", "b", "b", "a")] == ["a", "a", "b", "b", "a"]
    assert computed == ["a", "b", "a"]


def test_without_a_file_an_entry_is_computed_each_time() -> None:
    computed = [cached(None, lambda: ENTRY, key="a", version=1) for _ in range(2)]
    assert [one is ENTRY for one in computed] == [True, True]


def test_an_array_of_another_name_is_damage(tmp_path: Path) -> None:
    """Which checksums do not tell."""
    path = tmp_path / "cache.npz"
    write_cache(path, CacheEntry({}, {"rows": np.arange(3)}), key="k", version=1)
    assert read_cache(path, key="k", version=1) is not None
    path.write_bytes(path.read_bytes().replace(b"rows.npy", b"rowz.npy"))
    assert read_cache(path, key="k", version=1) is None
