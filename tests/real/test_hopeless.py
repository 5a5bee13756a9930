"""The cost of stopping a hopeless trial: less than a quarter of the evaluation data, in the median."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hopeless
import pytest


@pytest.mark.parametrize("name", ["vww", "kws", "resnet"])
def test_hopeless_trials_are_cheap(real_data: Path, name: Any) -> None:
    lines: list[Any] = []
    words = [str(real_data), "--models", name, "--numbers", "1,10"]
    cost = hopeless.main(words, lines.append)[name]
    assert cost.trials >= 10
    assert cost.of_evaluation < 0.25
    assert lines[0].startswith(f"{name}: ") and len(lines) == 2 + len(hopeless.FRACTIONS)
