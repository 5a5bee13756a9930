"""The comparison with Vela, with a stand-in that leaves to the CPU what it is told to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from vela_placement import NETWORKS, main


def stand_in(folder: Path, *kinds: str) -> str:
    """A program that says of every file that these operators of it are on the CPU."""
    said = "".join(f"Info: operator: {kind}, ofm: y\n" for kind in kinds)
    path = folder / "vela"
    path.write_text(f"#!{sys.executable}\nprint({said!r})\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_compared(tensorflow: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--vela", stand_in(tmp_path), "--networks", "dense"])
    assert capsys.readouterr().out == "4 of 4 files agree\n"
    main(["--vela", stand_in(tmp_path, "TRANSPOSE_CONV"), "--networks", "transposed-3"])
    lines = capsys.readouterr().out.splitlines()
    differs = "on the CPU by Vela {'TRANSPOSE_CONV': 1}, by the profile {}"
    assert lines == [
        f"transposed-3, ethos-u85, a scale for every channel: {differs}",
        f"transposed-3, ethos-u85, one scale: {differs}",
        "2 of 4 files agree",
    ]


def test_names_can_be_listed() -> None:
    assert not any("," in name for name in NETWORKS)
