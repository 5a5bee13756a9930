"""The benchmark runs; what it measures is not for a test to judge."""

from __future__ import annotations

from pathlib import Path

import growth_architectures
import numpy as np
import pytest
from growth_architectures import COLUMNS, OPENING, Watch


def test_each_time_and_peak_goes_to_one_column() -> None:
    phases = [
        {"name": "reading", "seconds": 1.0, "peak": 50.0},
        {"name": "normalizing", "seconds": 2.0, "peak": 60.0},
        {"name": "lowering the model for litert", "seconds": 3.0, "peak": 40.0},
        {"name": "calibration", "seconds": 4.0, "peak": 80.0},
        {"name": "calibration for sensitivity", "seconds": 5.0, "peak": 80.0},
        {"name": "choosing a plan", "seconds": 6.0, "peak": 80.0},
        {"name": "trial 0", "seconds": 7.0, "peak": 90.0},
        {"name": "latency", "seconds": 8.0, "peak": 30.0},
    ]
    (row,) = growth_architectures._rows("Net", "litert", {"weights": 10.0, "phases": phases}, phases=False)
    cells = dict(zip((*COLUMNS, "sum", "opening", "search"), map(float, row.split()[3:]), strict=True))
    assert [cells[name] for name in OPENING] == [1.0, 2.0, 3.0]
    assert (cells["calibrate"], cells["sensitivity"], cells["else"]) == (4.0, 5.0, 6.0)
    assert (cells["sum"], cells["opening"], cells["search"]) == (21.0, 6.0, 9.0)


def test_a_peak_is_that_of_its_phase() -> None:
    watch = Watch()
    watch.enter("large")
    held = np.ones(40_000_000, np.uint8)
    watch.enter("small")
    del held
    watch.enter("end")
    large, small = watch.phases
    assert (large.name, small.name) == ("large", "small")
    assert large.peak >= 39.0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras and NumPy 2
@pytest.mark.parametrize("target", growth_architectures.TARGETS)
def test_it_runs(target: str, tmp_path: Path) -> None:
    import keras

    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    net.save(tmp_path / "net.keras")
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=x[:20])
    np.savez(tmp_path / "evaluation.npz", x=x[20:])
    found = growth_architectures.searched(target, tmp_path)
    names = [phase.name for phase in found["phases"]]
    assert names.index("reading") < names.index("normalizing") < names.index("calibration") < names.index("trial 0")
    assert found["weights"] == pytest.approx((3 * 3 * 3 * 4 + 4) * 4 / 1e6)
