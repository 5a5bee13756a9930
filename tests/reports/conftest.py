"""Trials that ended, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoquant.calibration.plan import Plan
from autoquant.model.operators import is_tensor
from autoquant.tuning.study.trial import State, Trial


@pytest.fixture(scope="session")
def ended() -> Callable[..., Trial]:
    """Makes trials that ended: with `score` all samples were seen, without it the drop is an estimate or unknown."""

    def make(number: int, plan: Plan, **facts: Any) -> Trial:
        drop, done = facts.get("drop"), "score" in facts
        known: dict[str, Any] = {"state": State.DONE if done else State.STOPPED, "why": f"trial {number}"}
        if done:
            known |= {"drop": 0.75 - facts["score"], "within": 0.75 - facts["score"] <= 0.125}
        elif drop is not None:
            known |= {"low": drop - 0.25, "high": drop + 0.25, "within": False}
        share = sum(not is_tensor(name) for name in plan.int8) / max(1, len(plan.layers))
        costs = {"int8_share": share, "objective": 1.0 - share}
        return Trial(number, plan=plan, **{**known, **costs, **facts})

    return make
