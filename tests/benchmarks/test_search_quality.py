"""The benchmark runs, and fills every column; what it measures is not for a test to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import search_quality


@pytest.mark.usefixtures("tensorflow")
def test_it_runs(real_data: Path) -> None:
    lines: list[Any] = []
    words = ["--models", "kws", "--targets", "litert", "--samplers", "guided,tpe", "--max-trials", "1"]
    search_quality.main([str(real_data), *words], lines.append)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    assert {len(row) for row in rows} == {len(search_quality.HEADINGS)}
    assert [row[:4] for row in rows[1:]] == [["kws", "litert", sampler, "0.5%"] for sampler in ("guided", "tpe")]
    for row in rows[1:]:
        assert all(float(cell) > 0.0 for cell in row[4:7])
        assert row[-1] in ("certified", "met, not certified", "missed")
