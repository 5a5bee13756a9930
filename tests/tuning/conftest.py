"""A search that goes through its whole budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import Tiny

SPACE = """
[global]
batch_num = [2, 1]
channel_wise = [true, false]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


@pytest.fixture
def target() -> str:
    """The one that tests are about that say nothing of it."""
    return "tensorflow"


@pytest.fixture
def hopeless(tiny: Tiny, regression: Path, tmp_path: Path, target: str) -> dict[str, Any]:
    """Options of a search that goes through its whole budget."""
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    return {
        "model": tiny.model,
        "data": regression,
        "calibration": tiny.calibration,
        "metric": "mse",
        "tolerance": 0.0,
        "target": target,
        "space": space,
        "max_trials": 7,
        "batch_size": 20,
        "sampler": "tpe",
        "run": tmp_path / "run",
    }
