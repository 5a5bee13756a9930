"""What an owner computes of a plan before a worker is given it, and stores where workers elsewhere find it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.errors import TrialError
from autoquant.tuning.fleet.crew import Crew
from autoquant.tuning.fleet.messages import READY
from autoquant.tuning.study.run_folder import RunFolder


@dataclass
class Rounding:
    """A builder whose rounded weights are a file of the run, or an error."""

    folder: RunFolder
    fails: bool
    asked: list[str] = field(default_factory=list)

    def completed(self, plan: Plan) -> Plan:
        self.asked.append("completed")
        return plan

    def prepared(self, plan: Plan) -> None:
        self.asked.append("prepared")

    def round_weights(self, plan: Plan) -> None:
        self.asked.append("rounded")
        if self.fails:
            raise TrialError("conv", "it has no scale", hint="leave it in float")
        self.folder.corrections.mkdir()
        (self.folder.corrections / "weight-1.npz").write_bytes(b"integers")


def provided(folder: RunFolder, *, fails: bool) -> tuple[list[str], dict[str, Any], list[Any]]:
    """What was asked of the builder, stored by digest, and told to workers, once a plan was provided."""
    stored: dict[str, Any] = {}
    told: list[Any] = []

    def put(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        stored[digest] = content
        return digest

    board = SimpleNamespace(say=lambda member, what, facts: told.append((what, facts)))
    meeting: Any = SimpleNamespace(board=board, shelf=SimpleNamespace(put=put))
    nobody: Any = SimpleNamespace(member=1)
    crew, builder = Crew(meeting, nobody, nobody, folder, nobody, nobody), Rounding(folder, fails)
    crew._builder = builder  # type: ignore[assignment]
    crew.provide(Plan({}, weight_rounding="gptq"))
    return builder.asked, stored, told


def test_rounded_weights_are_stored_for_workers_elsewhere(tmp_path: Path) -> None:
    asked, stored, told = provided(RunFolder(tmp_path), fails=False)
    assert asked == ["completed", "prepared", "rounded"]
    ((what, files),) = told
    assert (what, list(files)) == (READY, ["corrections/weight-1.npz"])
    assert stored[files["corrections/weight-1.npz"]] == b"integers"


def test_weights_that_cannot_be_rounded_are_left_to_whoever_carries_the_plan_out(tmp_path: Path) -> None:
    asked, stored, told = provided(RunFolder(tmp_path), fails=True)
    assert asked[-1] == "rounded"
    assert (stored, told) == ({}, [(READY, {})])
