"""Processes that a search starts of its own, for trials: how they are called, and what they are to the system."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import autoquant
from autoquant.memory import TENSORFLOW

TRUSTED = "--trust-model"
"""Given to a process where the search was told so: run.toml never says it."""
FIRST_VICTIM = "1000"


def command(module: str, run: Path, *words: str, trust_model: bool) -> list[str]:
    """The command of a module of ours as a process for a run."""
    return [sys.executable, "-m", module, str(run), *words, *([TRUSTED] if trust_model else [])]


def environment() -> Mapping[str, str]:
    """The environment of a process that imports this package, wherever that is, with a TensorFlow that says little."""
    package = str(Path(autoquant.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {"TF_CPP_MIN_LOG_LEVEL": "3", **TENSORFLOW, **os.environ, "PYTHONPATH": paths}


def be_first_victim() -> None:
    """Let the system choose this process, not the search, when memory runs out."""
    with suppress(OSError):  # of Linux alone
        Path("/proc/self/oom_score_adj").write_text(FIRST_VICTIM)
