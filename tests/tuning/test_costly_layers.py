"""The layers that cost the most: what is known of them, or what there is time to measure; with a session of fakes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import TrialError
from autoquant.tuning.costly_layers import costly_layers
from autoquant.tuning.result import CostlyLayers
from autoquant.tuning.session import TimeLimit

PLAN = Plan({name: LayerPlan(MinMax()) for name in ("a", "b", "c", "d")})
TRIAL: Any = SimpleNamespace(plan=PLAN, parameters={}, seconds={"score": 8.0})


class Session:
    """A clock that each model built moves on by five seconds; layers alone diverge by 1, 2, ...; b cannot be built."""

    def __init__(self, folder: Path, *, known: Mapping[str, float] | None = None, timeout: float = math.inf) -> None:
        self.known_divergences = lambda parameters: known
        self.folder = SimpleNamespace(path=folder)
        self.study = SimpleNamespace(trials=lambda: (TRIAL,))
        self.budget = SimpleNamespace(error_rate=0.05)
        self.limit = TimeLimit(self.clock, 0.0, timeout)
        self.builder, self.scorer, self.max_drop = self, self, 0.01
        self.subset = range(40)
        self.now = 0.0
        self.told: list[tuple[int, int]] = []
        self.numbers = itertools.count(1)

    def clock(self) -> float:
        return self.now

    def has_no_time(self, what: str) -> bool:
        return self.limit.left() == 0.0

    def on_progress(self, what: str) -> Any:
        return lambda done, total: self.told.append((done, total))

    def build(self, plan: Plan, folder: Path) -> Any:
        self.now += 5.0
        if list(plan.int8) == ["b"]:
            raise TrialError("b", "overflows")
        return SimpleNamespace(path=folder)

    def score(self, path: Path, rules: Any) -> Any:
        assert rules.max_samples == 64
        return SimpleNamespace(divergences=(float(next(self.numbers)),))


def found(session: Any) -> CostlyLayers:
    return costly_layers(session, TRIAL)


def test_what_the_search_predicted_costs_nothing(tmp_path: Path) -> None:
    session = Session(tmp_path, known={"a": 0.25, "c": 0.5, "other": 9.0})
    assert found(session) == CostlyLayers((("c", 0.5), ("a", 0.25)), "predicted on calibration samples")
    assert session.now == 0.0


@pytest.mark.parametrize(
    ("timeout", "layers", "how"),
    [
        (math.inf, (("b", math.inf), ("c", 2.0), ("a", 1.0)), ", 3 of 4 layers, as time allowed"),
        (12.0, (("b", math.inf), ("a", 1.0)), ", 2 of 4 layers, as time allowed"),
        (8.0, (("a", 1.0),), ", 1 of 4 layers, as time allowed"),
    ],
    ids=["two trials of eight seconds", "what is left of the budget", "hardly anything"],
)
def test_measuring_ends_in_time(tmp_path: Path, timeout: float, layers: Any, how: str) -> None:
    session = Session(tmp_path, timeout=timeout)
    assert found(session) == CostlyLayers(layers, f"measured on 40 samples{how}")
    assert session.told == [(number, len(layers)) for number in range(1, len(layers) + 1)]  # not of 4
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_measured_without_time(tmp_path: Path) -> None:
    assert found(Session(tmp_path, timeout=0.0)) == CostlyLayers()
