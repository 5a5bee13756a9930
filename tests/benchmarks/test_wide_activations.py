"""The benchmark runs, goes on where it ended, and prints a table; what it measures is not for a test to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import last_tenth
import pytest
import wide_activations

from autoquant.formats.space_toml import load_space, parse_space


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_table_has_a_row_for_each_search() -> None:
    known: dict[str, Any] = {"model": "mid", "tolerance": "0.1%", "seed": 0, "max_drop": 0.00085275, "images": 9000}
    missed = dict.fromkeys((*wide_activations.COUNTS, "bytes", "latency", "drop"))
    counts = {
        "int8": 11,
        "wide_layers": 2,
        "in_float": 1,
        "objective": 0.1,
        "conversions": 4,
        "bytes": 60_000,
        "latency": 1.4,
    }
    found = [
        {**known, **counts, "wide": True, "drop": 0.0005, "trials": 7, "cpu": 31.0},
        {**known, **missed, "wide": False, "trials": 40, "cpu": 90.0},
    ]
    head, _, narrow, wide = map(cells, wide_activations.table(found))
    assert head == list(wide_activations.HEADINGS)
    assert narrow == ["mid", "0.1%", "0", "8", *["-"] * 6, "0.0008527", "-", "-", "9000", "40", "90.0"]
    assert wide[3:10] == ["8, 16", "11", "2", "1", "0.1", "4", "0.0005"]
    assert wide[11:] == ["60000", "1.4", "9000", "7", "31.0"]


@pytest.mark.usefixtures("tensorflow")
def test_both_searches_of_a_case_differ_in_one_choice_and_nothing_is_repeated(real_data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    results, made = tmp_path / "found.jsonl", tmp_path / "made"
    words = [str(real_data), str(results), "--cases", "bed", "--max-trials", "1", "--networks", str(made)]
    wide_activations.main(words, lines.append)
    narrow, wide = last_tenth.read(results)
    assert [(one["model"], one["wide"], one["trials"]) for one in (narrow, wide)] == [("mid", 0, 1), ("mid", 1, 1)]
    wide_activations.main(words, lines.append)
    assert last_tenth.read(results) == [narrow, wide]
    assert lines[:4] == lines[4:]
    space = parse_space((made / "mid-wide.toml").read_text(), "mid-wide.toml")
    assert (load_space("litert").layer.activation_bits, space.layer.activation_bits) == ((), (8, 16))
