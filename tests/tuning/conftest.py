"""Searches that several files of tests make."""

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
def on_lite(tiny: Tiny, regression: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a search on a .tflite, whose processes have no TensorFlow to load; the metric is in mine.py."""
    from autoquant.model.litert.convert import convert
    from autoquant.model.open import open_model

    model, space = tmp_path / "tiny.tflite", tmp_path / "space.toml"
    model.write_bytes(convert(open_model(tiny.model).graph).content)
    space.write_text('[layer]\nquant_enable = [true, false]\nact_algo = ["ifmr", "minmax"]\n')
    return {
        "model": model,
        "data": regression,
        "calibration": tiny.calibration,
        "metric": f"{tmp_path / 'mine.py'}:metric",
        "target": "litert",
        "space": space,
        "tolerance": 0.0,
        "sampler": "random",
        "certify": "none",
        "run": tmp_path / "run",
    }


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
