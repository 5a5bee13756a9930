"""The benchmark runs; how often a source is read is for a test to judge, for no machine's load changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import growth_samples
import pytest


def test_functions_are_read_once_and_calibration_up_to_what_it_wants(tensorflow: Any, tmp_path: Path) -> None:
    """That is 512 samples, or 11 batches of 50; the function gives 100 at a time."""
    found = growth_samples.measure("calibration", 700, tmp_path)
    assert (found["calls"], found["given"], found["hashed"]) == (2, 1 + 600 / 700, 1 + 600 / 700)


def test_without_a_cache_a_trial_is_a_pass(tensorflow: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"certify": "none", "tolerance": 0.0, "metric": "sqnr", "sampler": "random"}
    found = []
    for trials in (1, 3):
        (tmp_path / str(trials)).mkdir()
        found.append(
            growth_samples.measure("without a cache", 300, tmp_path / str(trials), max_trials=trials, **options)
        )
    assert [one["trials"] for one in found] == [1, 3]
    assert found[1]["calls"] - found[0]["calls"] == 2
    assert found[1]["given"] - found[0]["given"] == pytest.approx(2.0)
