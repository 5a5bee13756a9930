"""HDF5 files that its library cannot read, that it loops on, or that claim more than they have."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py  # type: ignore[import-untyped]  # it has no types
import numpy as np
import pytest

from autoquant.errors import ModelError
from autoquant.model.hdf5 import check_hdf5, read_everything


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as made:
        made.attrs["a"] = "text"
        made["group/values"] = np.arange(1000)
    return path


def test_what_is_whole_passes(file: Path) -> None:
    check_hdf5(file)


def test_what_is_cut_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(ModelError, match=r"m\.h5: HDF5 cannot read it: OSError: .*truncated"):
        check_hdf5(file)


def test_values_that_the_file_has_not_are_refused_before_memory_is_taken(file: Path) -> None:
    with h5py.File(file, "a") as made:
        made.create_dataset("large", (1 << 20, 1 << 20), "f4", chunks=(64, 64))
    with pytest.raises(ValueError, match=r"'large' is 4,398,046,511,104 bytes by its shape, of which the file has 0"):
        read_everything(file)
    with pytest.raises(ModelError, match="HDF5 cannot read it: ValueError: 'large' is"):
        check_hdf5(file)


@pytest.mark.parametrize(("code", "told"), [("while True: pass", "did not end within 2 s"), ("os.abort()", "died")])
def test_a_library_that_loops_or_crashes_ends_alone(
    file: Path, tmp_path: Path, code: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "h5py.py").write_text(f"import os\n{code}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr("autoquant.model.hdf5.SECONDS", 2.0)
    with pytest.raises(ModelError, match=told):
        check_hdf5(file)
