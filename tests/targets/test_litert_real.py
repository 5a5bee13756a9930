"""Real models: whole networks in INT8 keep their score, and what balancing saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import LiteNetwork, SavedLite, calibrated
from numpy.typing import NDArray

from autoquant.model.open import open_model
from autoquant.targets.litert import LiteRTTarget

BED = ("bed/evaluation.npz", "bed/calibration.npz", lambda x: x.astype(np.float32) / np.float32(127.5) - 1)
CASES: dict[str, tuple[str, str, str, Callable[[Any], Any]]] = {
    "resnet8": (
        "cifar10/resnet8.pb",
        "cifar10/evaluation.npz",
        "cifar10/calibration.npz",
        lambda x: x.astype(np.float32),
    ),
    "vww": (
        "vww/vww_96.pb",
        "vww/evaluation.npz",
        "vww/calibration.npz",
        lambda x: x.astype(np.float32) / np.float32(255),
    ),
    "mid": ("bed/mid.pb", *BED),
    "hard": ("bed/hard.pb", *BED),
}


@pytest.fixture(scope="module")
def real(real_data: Path) -> Callable[..., tuple[LiteNetwork, NDArray[Any], NDArray[Any]]]:
    """A model by name: opened, calibrated on 64 samples, and at most 2,000 to score."""

    def opened(name: str) -> tuple[LiteNetwork, NDArray[Any], NDArray[Any]]:
        model, evaluation, calibration, preprocess = CASES[name]
        data = np.load(real_data / evaluation)
        seen = preprocess(np.load(real_data / calibration)["x"][:64])
        net = calibrated(LiteRTTarget().lowered(open_model(real_data / model)), seen)
        return net, preprocess(data["x"][:2000]), data["y"][:2000]

    return opened


def accuracy(saved: SavedLite, x: NDArray[Any], y: NDArray[Any]) -> float:
    parts = [next(iter(saved.run(part).values())) for part in np.array_split(x, len(x) // 200)]
    return float((np.concatenate(parts).argmax(axis=1) == y).mean())


@pytest.mark.parametrize("name", ["resnet8", "vww"])
def test_all_in_int8_keeps_the_score(
    real: Callable[..., tuple[LiteNetwork, NDArray[Any], NDArray[Any]]], tmp_path: Path, name: str
) -> None:
    net, x, y = real(name)
    made = net.make(tmp_path / "m", net.plan())
    assert made.qdq_ops == 2
    saved = SavedLite((tmp_path / "m").read_bytes())
    floats = [kind for kind in saved.kinds if kind.endswith("*") and kind not in ("SHAPE*", "STRIDED_SLICE*", "PACK*")]
    assert floats == ["DEQUANTIZE*"]
    assert abs(accuracy(saved, x, y) - accuracy(SavedLite(net.lite.content), x, y)) < 0.02


@pytest.mark.parametrize(("name", "without"), [("mid", 0.4), ("hard", 0.2)])
def test_balancing_saves_what_unequal_channels_lose(
    real: Callable[..., tuple[LiteNetwork, NDArray[Any], NDArray[Any]]], tmp_path: Path, name: str, without: float
) -> None:
    net, x, y = real(name)
    lost = accuracy(net.saved(tmp_path / "m"), x, y)
    kept = accuracy(net.saved(tmp_path / "m", dmq=0.8), x, y)
    fp32 = accuracy(SavedLite(net.lite.content), x, y)
    assert lost < without
    assert kept > fp32 - 0.02
