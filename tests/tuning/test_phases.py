"""Time and samples by phase, counted from events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import Plan
from autoquant.errors import RunError
from autoquant.formats.codec import save
from autoquant.tuning.events import Progress, TrialEnded, TrialStarted
from autoquant.tuning.phases import PhaseClock, Phases, load_phases
from autoquant.tuning.study.trial import State, Trial

TRIAL = replace(Trial(3, State.STOPPED, Plan({}), "why"), samples=64)
EVENTS: list[tuple[float, Any]] = [
    (2.0, Progress("baseline", 0, 100)),
    (3.0, Progress("baseline", 50, 100)),
    (5.0, Progress("baseline", 100, 100)),
    (5.5, Progress("building trial 3", 0, 0)),
    (6.0, TrialStarted(3, "why", 1, 1.0)),
    (7.0, Progress("trial 3", 64, 100)),
    (8.0, TrialEnded(TRIAL, None, 1, 1.0)),
    (8.5, Progress("choosing a plan", 0, 0)),
    (9.0, Progress("trial 3, all samples", 10, 100)),
    (9.25, Progress("certification", 40, 40)),
]


def test_time_belongs_to_the_phase_that_began_last() -> None:
    clock = PhaseClock(1.0)
    for now, event in EVENTS:
        clock.hear(event, now)
    assert clock.phases == Phases(
        {"starting": 1.0, "baseline": 3.5, "trials": 3.25, "choosing a plan": 0.5},
        {"baseline": 100, "trials": 64, "certification": 40},
    )


def test_a_run_that_goes_on_adds_to_what_was_counted_before(tmp_path: Path) -> None:
    path = tmp_path / "phases.json"
    assert load_phases(path) == Phases()
    save(Phases({"trials": 2.0}, {"trials": 10}) + Phases({"trials": 1.0, "baseline": 3.0}, {"trials": 5}), path)
    assert load_phases(path) == Phases({"trials": 3.0, "baseline": 3.0}, {"trials": 15})
    path.write_text('{"version": 1, "seconds": {"trials": -1.0}}')
    with pytest.raises(RunError, match="negative"):
        load_phases(path)
