"""A search that goes through its whole budget."""

from __future__ import annotations

import pytest

SPACE = """
[global]
batch_num = [2, 1]
channel_wise = [true, false]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


@pytest.fixture
def hopeless(tiny, regression, tmp_path):
    """Options of a search that goes through its whole budget."""
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    return {
        "model": tiny.model,
        "data": regression,
        "calibration": tiny.calibration,
        "metric": "mse",
        "tolerance": 0.0,
        "space": space,
        "max_trials": 7,
        "batch_size": 20,
        "run": tmp_path / "run",
    }
