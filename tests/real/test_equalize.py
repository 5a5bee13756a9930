"""Equalization on real models: networks whose channels were made unequal come back, with every layer in INT8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from real_cases import CASES, searched

SPACE = """
version = 1
[global]
act_algo = ["{algorithm}"]
batch_num = 11
channel_wise = [{channel_wise}]
equalize = [true]
"""


@pytest.mark.parametrize("target", ["litert", "tensorflow"])
@pytest.mark.parametrize(("name", "algorithm", "channel_wise"), [("hard", "minmax", "true"), ("mid", "ifmr", "false")])
def test_one_plan_meets_one_percent_with_every_layer_in_int8(
    real_data: Path, tmp_path: Path, name: str, algorithm: str, channel_wise: str, target: str
) -> None:
    """Without equalization, with these settings: 0.10 and 0.08."""
    space = tmp_path / "space.toml"
    space.write_text(SPACE.format(algorithm=algorithm, channel_wise=channel_wise))
    case = replace(CASES[name], max_trials=1)
    result = searched(case, real_data, tmp_path / "run", target=target, space=space)
    assert result.best is not None
    assert result.best.int8_layers == sum(case.layers.values())
    assert result.baseline is not None and result.score is not None
    assert result.baseline - result.score <= 0.01 * result.baseline
