"""holdout_log.json: every evaluation of a trial on the holdout, so that none is forgotten when another one follows.

A certificate is beside a model, and the next one takes its place; evaluations are only ever added.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.errors import RunError
from autoquant.formats.codec import load, save
from autoquant.tuning.certification.certificate import Verdict, require_digests
from autoquant.tuning.study.run_folder import RunFolder

AGAIN = "it records which holdout samples were used: restore the file as the search wrote it, or start a new run"


@dataclass(frozen=True, slots=True)
class HoldoutEvaluation:
    """A trial was scored on the holdout: SHA-256 (hex) of that data and of its model file, and the verdict."""

    data: str
    trial: int
    model: str
    verdict: Verdict

    def __post_init__(self) -> None:
        require_digests(self.data, self.model)
        if self.trial < 0:
            raise ValueError(f"trials count from 0, got {self.trial}")


@dataclass(frozen=True, slots=True)
class HoldoutLog:
    """The evaluations of a run, in order."""

    evaluations: tuple[HoldoutEvaluation, ...]


def read_holdout_log(folder: RunFolder) -> tuple[HoldoutEvaluation, ...]:
    """The evaluations of a run, in order. Raises RunError that names the key."""
    if not folder.holdout_log.exists():
        return ()
    return load(HoldoutLog, folder.holdout_log, RunError, hint=AGAIN).evaluations


def add_to_holdout_log(evaluation: HoldoutEvaluation, folder: RunFolder) -> None:
    """Add an evaluation to those of the run, once. Raises RunError."""
    evaluations = tuple(dict.fromkeys([*read_holdout_log(folder), evaluation]))
    save(HoldoutLog(evaluations), folder.holdout_log)
