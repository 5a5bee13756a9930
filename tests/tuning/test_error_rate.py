"""A search spends its error rate: each trial its share, all trials together no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.evaluation.statistics.sequential import SequentialTest


def spent(tiny: Tiny, run: Path, monkeypatch: pytest.MonkeyPatch, *, error_rate: float) -> list[float]:
    """The error probabilities of the tests that a search of three trials makes, one of each trial."""
    alphas = []
    begin = SequentialTest.__init__

    def recording(self: SequentialTest, max_drop: float, **options: Any) -> None:
        alphas.append(options["alpha"])
        begin(self, max_drop, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SequentialTest, "__init__", recording)
        result = autoquant.search(
            tiny.model,
            tiny.evaluation,
            calibration=tiny.calibration,
            tolerance=0.0,
            sampler="random",
            max_trials=3,
            error_rate=error_rate,
            certify="none",
            run=run,
        )
    assert len(result.trials) == 3
    return alphas


@pytest.mark.parametrize("error_rate", [0.05, 0.2])
def test_a_search_spends_its_error_rate_over_its_trials(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_rate: float
) -> None:
    """Trial k, from 1, may err with probability 6 / (pi k)^2 of the rate; all k together then spend it."""
    alphas = spent(tiny, tmp_path / "run", monkeypatch, error_rate=error_rate)
    shares = 6.0 / (np.pi * np.arange(1, 4)) ** 2
    assert alphas == pytest.approx((error_rate * shares).tolist())
