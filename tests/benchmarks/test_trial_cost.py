"""The benchmark runs, and prints every part; what it measures is not for a test to judge."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_it_runs(tiny, capsys):
    spec = importlib.util.spec_from_file_location("trial_cost", Path(__file__).with_name("trial_cost.py"))
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.main([str(tiny.model), str(tiny.evaluation), "--calibration", str(tiny.calibration), "--repeat", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny: 3 layers, 200 samples"
    assert [line.split("  ")[0] for line in lines[3:]] == [*benchmark.PARTS, "all but scoring"]
    assert all(float(number) > 0 for line in lines[3:] for number in line.split()[-2:])
