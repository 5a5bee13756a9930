"""The benchmark runs, and fills both tables; what it measures is not for a test to judge."""

from __future__ import annotations

import asymptotic_error


def test_it_runs() -> None:
    lines: list[str] = []
    asymptotic_error.main(["--runs", "3", "--alphas", "0.05", "--sizes", "200"], lines.append)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) == 2 + len(asymptotic_error.DRAWS) + 3
    assert all(0.0 <= float(cell) <= 1.0 for row in rows[2:-3] for cell in row[3:])
    assert all(0.0 < float(cell) <= 1.0 for cell in rows[-1][2:])
