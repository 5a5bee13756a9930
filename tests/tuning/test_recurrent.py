"""Searches on an LSTM with an open batch, from the file to the INT8 model, which is scored again without our code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import SavedLite
from recurrent import FEATURES, STEPS, freeze, predict, recurrent, run_pb, sequences

import autoquant

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SAMPLES = 300
DENSE, LSTM = STEPS * FEATURES * 8 + 5 * 7 + 7 * 3, STEPS * (8 + 5) * 4 * 5
SHARE = DENSE / (DENSE + LSTM)
"""Multiply-adds of the layers around the loop, of all."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network as a Keras file and frozen with loops of TensorFlow 1, and data that it is right on."""
    folder = tmp_path_factory.mktemp("lstm")
    network = recurrent("lstm")
    network.save(folder / "m.keras")
    x = sequences(SAMPLES)
    np.savez(folder / "data.npz", x=x, y=predict(network, x)[0].argmax(axis=1))
    np.savez(folder / "calibration.npz", x=sequences(64, seed=1))
    pb = freeze(network, folder / "m.pb", lowered=True)
    return {"litert": folder / "m.keras", "tensorflow": pb, "folder": folder}


def found(files: dict[str, Path], target: str, **options: Any) -> Any:
    folder = files["folder"]
    return autoquant.search(
        files[target],
        folder / "data.npz",
        calibration=folder / "calibration.npz",
        tolerance="3%",
        target=target,
        max_trials=3,
        certify="none",
        **options,
    )


def right(files: dict[str, Path], scores: Any) -> float:
    return float((scores.argmax(axis=1) == np.load(files["folder"] / "data.npz")["y"]).mean())


@pytest.mark.parametrize("engine", ["litert", "tensorflow"])
def test_target_tensorflow(engine: str, files: dict[str, Path], tmp_path: Path) -> None:
    result = found(files, "tensorflow", run=tmp_path / "run", engine=engine)
    assert tomllib.loads((result.run / "run.toml").read_text())["engine"]["name"] == engine
    assert len(result.best.plan.int8) == 3
    assert result.best.int8_share == pytest.approx(SHARE)
    (scores,) = run_pb(result.model, ["Identity:0"], sequences(SAMPLES))
    assert right(files, scores) == pytest.approx(result.score, abs=1e-6)
    assert result.score >= 0.97


def test_target_litert(files: dict[str, Path], tmp_path: Path) -> None:
    result = found(files, "litert", run=tmp_path / "run")
    assert len(result.best.plan.int8) == 3
    assert result.best.int8_share == pytest.approx(SHARE)
    (scores,) = SavedLite(result.model.read_bytes()).run(sequences(SAMPLES)).values()
    assert right(files, scores) == pytest.approx(
        result.score, abs=0.01
    )  # kernels round by how many samples run at once
    assert result.score >= 0.97
