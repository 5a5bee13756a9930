"""What a header says is compared with what is there before memory is taken."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from autoquant.cache import CacheEntry, read_cache, write_cache
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import open_data
from autoquant.model.model import InputSpec
from autoquant.npz import MappedNpz, load_npz, mapped_npy

X = np.arange(24, dtype=np.float32).reshape(4, 6)
ROW = InputSpec("input", np.dtype(np.float32), (None, 6))
TERABYTES = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, 1), }}"
HEADERS = {
    "4 TiB": (TERABYTES, "its header says 4,398,046,511,104 bytes"),
    "overflow": ("{'descr': '<f4', 'fortran_order': False, 'shape': (2**70,), }", "cannot be read"),
    "more than an index": (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**70},), }}", "its header says"),
    "negative": ("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 6), }", r"has the shape \(-4, 6\)"),
    "no type": ("{'descr': '<q99', 'fortran_order': False, 'shape': (4, 6), }", "descr"),
    "large type": (
        "{'descr': 'S2147483647', 'fortran_order': False, 'shape': (9,), }",
        "its header says 19,327,352,823",
    ),
    "one value": ("{'descr': 'S2147483647', 'fortran_order': False, 'shape': (), }", "its header says 2,147,483,647"),
    "no dictionary": ("[1, 2", "cannot be read"),
}


def with_header(text: str) -> bytes:
    content = text.encode().ljust(117) + b"\n"
    return npy.magic(1, 0) + len(content).to_bytes(2, "little") + content + X.tobytes()


def archived(content: bytes, compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x.npy", content)
    return file.getvalue()


@pytest.mark.parametrize("kind", [".npy", ".npz", "compressed"])
@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    text, told = HEADERS[name]
    path = tmp_path / ("x.npy" if kind == ".npy" else "x.npz")
    compression = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    path.write_bytes(with_header(text) if kind == ".npy" else archived(with_header(text), compression))
    tracemalloc.start()
    with pytest.raises(DataError, match=told):
        open_data(path, (ROW,))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        npy.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (2**24, 6)})
        for _ in range(24):
            member.write(bytes(1 << 24))
    assert path.stat().st_size < 4_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"'x\.npy' is [\d,]+ bytes that unpack to 402,653,312; if that is right, save"):
        open_data(path, (ROW,))
    assert read_cache(path, key="", version=1) is None
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@given(st.data())
def test_damage_is_a_value_error_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    file = io.BytesIO()
    (np.savez_compressed if data.draw(st.booleans()) else np.savez)(file, x=X, text=np.array(["a", "bc"]))
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(ValueError, OSError):
        dict(MappedNpz(path))
    with suppress(ValueError, OSError):
        load_npz(path)


@pytest.mark.parametrize("size", range(0, 128, 9))
def test_a_cut_header(size: int, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"."):
        mapped_npy(path)
    with pytest.raises(DataError, match=r"cannot be read as \.npy"):
        open_data(path, (ROW,))


def test_a_flipped_bit_in_a_cache_is_found(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    write_cache(path, CacheEntry({}, {"x": X}), key="k", version=1)
    content = path.read_bytes()
    place = content.index(X.tobytes()) + 5
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert read_cache(path, key="k", version=1) is None
