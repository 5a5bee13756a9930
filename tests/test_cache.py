"""Arrays kept under a key: read back whole, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoquant.cache import Kept, keep, read_kept
from autoquant.errors import RunError

KEPT = Kept({"names": ["a", "ü"], "value": 0.1}, {"a": np.arange(6.0).reshape(2, 3), "b/0": np.zeros(0, np.int8)})


@pytest.fixture
def file(tmp_path):
    keep(tmp_path / "kept.npz", KEPT, key="k", version=1)
    return tmp_path / "kept.npz"


def test_round_trip(file):
    found = read_kept(file, key="k", version=1)
    assert found is not None
    assert found.header == KEPT.header
    assert found.arrays.keys() == KEPT.arrays.keys()
    for name, array in KEPT.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


def test_nothing_stale(file):
    assert read_kept(file, key="other", version=1) is None
    assert read_kept(file, key="k", version=2) is None
    assert read_kept(file.with_name("absent.npz"), key="k", version=1) is None


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_a_damaged_file_is_never_used(file, data):
    """Bytes changed or cut off: either it cannot be told, or what is read is what was kept."""
    keep(file, KEPT, key="k", version=1)
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    found = read_kept(file, key="k", version=1)
    if found is not None:
        assert found.header == KEPT.header
        for name in found.arrays.keys() & KEPT.arrays.keys():
            np.testing.assert_array_equal(found.arrays[name], KEPT.arrays[name])


def test_a_disk_that_refuses(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        keep(tmp_path / "absent" / "kept.npz", KEPT, key="k", version=1)
