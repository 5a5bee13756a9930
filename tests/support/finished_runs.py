"""Searches of both targets that have ended, each after one trial, to export, damage or measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_model import Tiny

import autoquant
from autoquant.tuning.result import SearchResult

TARGETS = ("litert", "tensorflow")
SPACE = '[layer]\nact_algo = "minmax"\ndmq_balancer = false\nquant_enable = [true, false]\n'


def finished_runs(tiny: Tiny, folder: Path, **options: Any) -> dict[str, SearchResult]:
    """A run of each target in a folder, all on the same search space; it has certified unless options say otherwise."""
    (folder / "space.toml").write_text(SPACE)
    return {
        target: autoquant.search(
            tiny.model,
            tiny.evaluation,
            **{
                "calibration": tiny.calibration,
                "tolerance": 0.3,
                "max_trials": 1,
                "target": target,
                "space": folder / "space.toml",
                "run": folder / target,
                **options,
            },
        )
        for target in TARGETS
    }
