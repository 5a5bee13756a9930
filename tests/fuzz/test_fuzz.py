"""A few hundred cases of the fuzzer; tests/fuzz/fuzz.py runs as many as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cases run in forked processes")
def test_no_damaged_file_is_more_than_refused() -> None:
    """In a process of its own: this one has threads."""
    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    try:
        from parsers import PARSERS
    finally:
        sys.path.remove(str(here))
    options = ["--cases", str(CASES), "--seed", "7", "--parsers", ",".join(PARSERS)]
    done = subprocess.run(
        [sys.executable, str(here / "fuzz.py"), *options], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in counted] == list(PARSERS)
    assert sum("accepted" in line or "accepted," in line for line in counted) > len(PARSERS) / 3
    assert sum("refused" in line or "refused," in line for line in counted) > len(PARSERS) / 2
