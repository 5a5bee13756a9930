"""The benchmark runs, and prints every part; what it measures is not for a test to judge."""

from __future__ import annotations

import calibration_cost
import pytest
from tiny_model import Tiny

from autoquant.targets.table import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_it_runs(target: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    calibration_cost.main([str(tiny.model), str(tiny.calibration), "--target", target, "--repeat", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny: ") and "64 samples" in lines[0]
    costs = {line[:44].strip(): [float(word) for word in line[44:].split()] for line in lines[1:]}
    assert costs.pop("FP32 pass") == [1.0, 1.0]
    assert len(costs) == 4 and "calibration" in costs
    assert all(cost >= 0.0 for each in costs.values() for cost in each)


def test_samples_of_its_own(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    calibration_cost.main([str(tiny.model), "--samples", "32", "--repeat", "1"])
    assert "32 samples" in capsys.readouterr().out
