"""The benchmark runs; what it measures is not for a test to judge, but for what can be counted."""

from __future__ import annotations

from pathlib import Path

import growth_outputs
import pytest
from growth_outputs import CASES, Case


@pytest.mark.parametrize(("shape", "metric"), [((8, 8, 3), "agreement"), ((8, 8, 3), "psnr"), ((16,), "sqnr")])
def test_it_runs(shape: tuple[int, ...], metric: str, tmp_path: Path) -> None:
    assert 0.0 <= growth_outputs.measure(Case(20, shape, 5, metric), tmp_path) < 1000.0


def test_what_is_counted() -> None:
    assert CASES["maps, sqnr"].bytes == 256 * 512 * 512 * 20 * 4
    assert growth_outputs.metric_calls() == 2200
