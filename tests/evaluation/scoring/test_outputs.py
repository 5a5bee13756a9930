"""The cache of outputs, in memory and on disk, and the size of batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoquant.errors import TrialError
from autoquant.evaluation.engines.engine import bounded_batch
from autoquant.evaluation.scoring.outputs import OutputCache
from autoquant.model.model import InputSpec

RANDOM = np.random.default_rng(0)
SCORES, MAPS = RANDOM.normal(size=(23, 4)).astype(np.float32), RANDOM.integers(0, 9, (23, 2, 3)).astype(np.uint8)
MB = 1 << 20


def filled(folder: Path, **options: int) -> OutputCache:
    cache = OutputCache(folder, **options)
    for start, stop in [(0, 10), (10, 11), (11, 23)]:
        cache.add({"scores": SCORES[start:stop], "map": MAPS[start:stop]})
    return cache


@pytest.mark.parametrize("in_memory", [1, 1 << 20], ids=["on disk", "in memory"])
@pytest.mark.parametrize("numbers", [[0], [22], [9, 10, 11], [3, 5, 20], range(23)])
def test_outputs_come_back_wherever_batches_began(tmp_path: Path, in_memory: int, numbers: list[int]) -> None:
    found = filled(tmp_path, in_memory=in_memory).rows(np.asarray(numbers))
    np.testing.assert_array_equal(found["scores"], SCORES[numbers])
    np.testing.assert_array_equal(found["map"], MAPS[numbers])
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_it_is_full_at_a_number_of_bytes(tmp_path: Path) -> None:
    row = SCORES[0].nbytes + MAPS[0].nbytes
    cache = filled(tmp_path, most=11 * row)
    assert (len(cache), cache.full, cache.size) == (11, True, 11 * row)
    assert not filled(tmp_path, most=23 * row).full


def test_outputs_of_other_shapes_are_parts_and_not_rows(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path)
    for size in (2, 3):
        cache.add({"y": np.full((4, size), size)})
    shapes = [(at.start, at.stop, outputs["y"].shape) for at, outputs in cache.parts(np.asarray([1, 3, 4]))]
    assert shapes == [(0, 2, (2, 2)), (2, 3, (1, 3))]
    with pytest.raises(TrialError, match=r"output 'y' of the FP32 model has shapes \(2,\), \(3,\) in one batch"):
        cache.rows(np.asarray([3, 4]))


@pytest.mark.parametrize(
    ("sample_bytes", "fixed", "size"),
    [(4000, None, 50), (MB, None, 32), (20 * MB, None, 1), (100 * MB, None, 1), (MB, 10, 30), (20 * MB, 10, 10)],
)
def test_the_size_of_a_batch(sample_bytes: int, fixed: int | None, size: int) -> None:
    assert bounded_batch(50, sample_bytes, [InputSpec("x", np.dtype(np.float32), (fixed, 4))]) == size
