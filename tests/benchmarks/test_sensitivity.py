"""The benchmark runs, and prints every figure; what it measures is not for this test to judge."""

from __future__ import annotations

import pytest
import sensitivity
from tiny_model import Tiny

WAYS = {
    "tensorflow": ["fisher, seed 0", "fisher, seed 1", "divergence", "amct CosineSimilarity", "amct Mse"],
    "litert": ["fisher, seed 0", "fisher, seed 1", "divergence"],
}


@pytest.mark.parametrize("target", WAYS)
def test_it_runs(tiny: Tiny, capsys: pytest.CaptureFixture[str], target: str) -> None:
    words = [tiny.model, tiny.evaluation, "--calibration", tiny.calibration, "--target", target]
    sensitivity.main([*map(str, words), "--seeds", "2", "--repeat", "1", "--evaluated", "40"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "tiny: 3 layers, 64 samples, 40 evaluated"
    figures = [line.removeprefix("Spearman ").rsplit(maxsplit=1) for line in lines if line.startswith("Spearman")]
    assert [way for way, _ in figures] == WAYS[target]
    assert all(-1 <= float(figure) <= 1 for _, figure in figures)
    assert [line.split()[:2] for line in lines[len(figures) :]] == [["passes", "fisher"], ["passes", "divergence"]]
