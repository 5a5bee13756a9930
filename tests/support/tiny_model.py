"""The files of the tiny model that most tests quantize."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tiny:
    """A frozen .pb (`image` (batch, 8, 8, 2) -> `scores` (batch, 3)), its weights, and data with labels.

    Layers: `conv` (Conv2D, bias), `depthwise` (multiplier 2, stride 2, no bias), `dense` (MatMul, bias).
    """

    model: Path
    evaluation: Path
    calibration: Path
    weights: dict[str, Any]
