"""Sensitivities rank the layers of real models as INT8 models with one of them in INT8 do, at least at 0.9."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_cases import CASES
from sensitivity import open_all, rank

from autoquant.tuning.study.model_request import DataRequest


@pytest.mark.parametrize("name", ["mid", "vww"])
def test_rank_correlation(real_data: Path, name: str) -> None:
    case = CASES[name]
    folder = real_data / case.data
    request = DataRequest(data=folder / "evaluation.npz", calibration=folder / "calibration.npz", **case.options)
    ranked = rank(open_all(request, real_data / case.model), seeds=2, amct=False)
    assert len(ranked.measured) == sum(case.layers.values())
    assert len(ranked.correlations) == 3
    assert min(ranked.correlations.values()) >= 0.9, ranked.correlations
