"""A search that goes through its whole budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import Tiny

from autoquant.calibration.plan import Plan
from autoquant.model.names import is_tensor
from autoquant.tuning.study.trial import State, Trial

SPACE = """
[global]
batch_num = [2, 1]
channel_wise = [true, false]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


@pytest.fixture
def hopeless(tiny: Tiny, regression: Path, tmp_path: Path) -> dict[str, Any]:
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
        "sampler": "tpe",
        "run": tmp_path / "run",
    }


@pytest.fixture(scope="session")
def ended() -> Callable[..., Trial]:
    """Makes trials that ended: with `score` all samples were seen, without it the drop is an estimate or unknown."""

    def make(number: int, plan: Plan, **facts: Any) -> Trial:
        drop, done = facts.get("drop"), "score" in facts
        known = {"state": State.DONE if done else State.STOPPED, "why": f"trial {number}"}
        if done:
            known |= {"drop": 0.75 - facts["score"], "within": 0.75 - facts["score"] <= 0.125}
        elif drop is not None:
            known |= {"low": drop - 0.25, "high": drop + 0.25, "within": False}
        share = sum(not is_tensor(name) for name in plan.int8) / max(1, len(plan.layers))
        costs = {"int8_layers": len(plan.int8), "int8_share": share, "objective": 1.0 - share}
        return Trial(number, plan=plan, **{**known, **costs, **facts})

    return make
