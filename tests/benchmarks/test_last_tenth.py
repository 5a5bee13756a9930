"""The benchmark runs, goes on where it ended, and sums up; what it measures is not for a test to judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import last_tenth
import pytest


def line(**facts: Any) -> dict[str, Any]:
    known = {"model": "mid", "target": "litert", "calibration": "512", "tolerance": "0.1%", "sampler": "guided"}
    found = {"layers": 14, "int8": 14, "share": 1.0, "images": 4000, "cpu": 2.0, "first": 1.0}
    return {**known, "seed": 0, "max_trials": 60, **found, **facts}


def test_a_summary_has_medians_and_the_worst() -> None:
    found = [line(), line(int8=9, share=0.8, images=50_000, first=None), line(images=6000, cpu=9.0, first=2.0)]
    head, _, own, together = last_tenth.summary(found)
    assert len(head.strip("| ").split(" | ")) == len(last_tenth.HEADINGS)
    cells = [cell.strip() for cell in own.strip("|").split("|")]
    assert cells[:4] == ["mid", "litert", "0.1%", "guided"]
    assert cells[4:] == ["3", "14", "2", "9/14", "0.8000", "6,000", "50,000", "2", "2.00", "inf"]
    assert [cell.strip() for cell in together.strip("|").split("|")] == ["bed", "both", "0.1%", "guided", *cells[4:]]


@pytest.mark.usefixtures("tensorflow")
def test_it_runs_and_repeats_nothing(real_data: Path, tmp_path: Path) -> None:
    lines: list[Any] = []
    words = ["--cases", "bed", "--models", "mid", "--targets", "litert", "--calibrations", "first", "--max-trials", "1"]
    asked = [str(real_data), str(tmp_path / "found.jsonl"), *words, "--networks", str(tmp_path / "made")]
    last_tenth.main([*asked, "--seeds", "0"], lines.append)
    assert len(lines) == 1 + 4
    last_tenth.main([*asked, "--seeds", "0,1"], lines.append)
    assert len(lines) == 5 + 1 + 4
    found = last_tenth.read(tmp_path / "found.jsonl")
    assert [json.loads(lines[0]), json.loads(lines[5])] == found
    assert [(one["seed"], one["layers"], one["trials"], one["samples"]) for one in found] == [
        (0, 14, 1, 4000),
        (1, 14, 1, 4000),
    ]
    last_tenth.main(["--summary", str(tmp_path / "found.jsonl")], lines.append)
    assert lines[-4:] == lines[-8:-4]
