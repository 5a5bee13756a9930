from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from fake_search import fake_session, search_problem
from fleet import SleepingCrew
from fleets import Played

from autoquant.quiet import no_progress
from autoquant.tuning.fleet.board import Board
from autoquant.tuning.fleet.crew import Crew
from autoquant.tuning.fleet.dispatch import run_on_workers
from autoquant.tuning.fleet.owner import Fleet
from autoquant.tuning.result import Ended
from autoquant.tuning.session import TimeLimit
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.trial import Trial


def test_the_time_is_over_while_a_plan_is_chosen(board: Board, tmp_path: Path) -> None:
    """As where a sampler first looks how sensitive layers are: that ends, and what waits is not waited for."""
    now = [0.0]

    def choose(trials: Sequence[Trial]) -> Suggestion | None:
        report = session.on_progress("sensitivity of layers")
        for step in range(100):
            now[0] += 1.0
            report(step, 100)
        raise AssertionError("it went on for 100 s, and there were 10")

    session = fake_session(tmp_path, search_problem(3), choose, trials=5)
    session = replace(session, limit=TimeLimit(lambda: now[0], begin=0.0, timeout=10.0))
    fleet = Fleet(board, 0, no_progress, lambda: now[0])
    Played(board)
    assert run_on_workers(session, cast(Crew, SleepingCrew(fleet)), sleep=no_progress) is Ended.TIMEOUT
    assert now[0] <= 11.0
