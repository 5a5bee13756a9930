"""The files of the small model of the tests of the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Files:
    model: Path
    data: Path
    calibration: Path
