"""The benchmark runs, and the optimum that it compares with is one; what it measures is not for a test to judge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bad_layers
import numpy as np
import pytest
import simulated_workers
import small_networks
from numpy.typing import NDArray
from small_networks import Found, Optimum, found_in

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.trial import State, Trial


def test_it_runs(real_data: Path) -> None:
    lines: list[Any] = []
    words = ["--targets", "litert", "--samplers", "guided,amct", "--seeds", "1", "--max-trials", "4"]
    small_networks.main([str(real_data), *words, "--networks", "kws"], lines.append)
    assert lines[0].startswith("kws on litert: 11 layers, 800 samples, tolerance 0, optimum ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    assert [row[:3] for row in rows] == [["kws", "litert", sampler] for sampler in ("guided", "amct")]
    assert all(float(cell) >= 0.0 for row in rows for cell in row[3:] if cell != "-")


def test_spoiled_weights_compute_the_same() -> None:
    """In float64, by one position of the second layer: what was added to one channel is taken from its equal."""
    rng = np.random.default_rng(1)
    weights = {
        name: (rng.normal(size=(1, 1, 3, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32))
        for pair in bad_layers.BAD.items()
        for name in (pair[0], pair[1][0])
    }
    for name, (before, _) in bad_layers.BAD.items():
        weights[name] = (rng.normal(size=(1, 1, 4, 2)).astype(np.float32), np.zeros(2, np.float32))
        found, x = bad_layers.spoiled(weights), rng.normal(size=3)

        def through(
            own: dict[str, tuple[NDArray[Any], NDArray[Any]]],
            name: str = name,
            before: str = before,
            x: NDArray[Any] = x,
        ) -> Any:
            hidden = np.maximum(x @ own[before][0][0, 0].astype(np.float64) + own[before][1], 0.0)
            return hidden @ own[name][0][0, 0].astype(np.float64)

        np.testing.assert_allclose(through(found), through(weights), atol=0.01)  # the sums are rounded to float32
        assert np.abs(found[name][0]).max() > 1000 * np.abs(weights[name][0]).max()


def trial(number: int, share: float, drop: float, samples: int) -> Trial:
    plan = Plan({"a": LayerPlan()})
    return Trial(
        number,
        State.DONE,
        plan,
        "",
        int8_share=share,
        objective=1.0 - share,
        score=0.9 - drop,
        drop=drop,
        samples=samples,
    )


def test_best_trials_by_seconds_and_evaluations() -> None:
    trials = (trial(0, 1.0, 0.1, 100), trial(1, 0.5, 0.0, 100), trial(2, 0.8, 0.01, 900), trial(3, 0.9, 0.02, 100))
    result = SearchResult(
        verdict=Verdict.MET,
        metric="top1",
        baseline=0.9,
        max_drop=0.01,
        worst_score=0.89,
        best=trials[2],
        trials=trials,
        layers=1,
        seconds=1.0,
        model=None,
        run=Path("run"),
        ended=Ended.TRIALS,
        search_samples=100,
    )
    assert found_in(result, Optimum(0.8, (), 3)) == Found(early=0.5, until=11.0, share=0.8, evaluations=12.0, trials=4)
    assert math.isinf(found_in(result, Optimum(0.9, (), 3)).until)


def test_with_workers_the_same_trials_take_less_time() -> None:
    """By counting, on one network: with one worker its trials follow each other, with eight they overlap."""
    lines: list[Any] = []
    small_networks.main(["--workers", "1,8", "--samplers", "guided,random", "--seeds", "2"], lines.append)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    assert {len(row) for row in rows} == {len(simulated_workers.HEADINGS)}
    assert [row[:2] for row in rows[1:]] == [[name, count] for name in ("guided", "random") for count in ("1", "8")]
    one, eight = (simulated_workers.simulate("random", count, 0, most=24) for count in (1, 8))
    assert (one.found, eight.found, one.trials, eight.trials) == (False, False, 24, 24)
    assert one.idle == pytest.approx(0.0, abs=1e-9)
    assert 24 / 8 * 0.5 < eight.time < one.time / 3


def test_without_a_folder_only_workers_can_be_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        small_networks.main([])
    assert "give the folder of the data, or --workers" in capsys.readouterr().err
