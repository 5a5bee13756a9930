from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autoquant.cli.state import RECENT, Pace, SearchState, update
from autoquant.tuning.events import (
    BaselineScored,
    Calibrated,
    DataSplit,
    Event,
    Finished,
    Opened,
    Progress,
    Resumed,
    TrialEnded,
    TrialStarted,
    Warned,
)
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import Trial

OPENED = Opened(Path("run"), "net", 3, 1000, 80, 20, 50, 60.0)


def test_rate_and_time_left_come_from_the_reports_heard() -> None:
    state = SearchState()
    for now, done in ((10.0, 50), (11.0, 150), (12.0, 250)):
        state = update(state, Progress("trial 0", done, 1000), now)
    assert state.pace is not None
    assert state.pace.rate == 100.0
    assert state.pace.left(12.0) == 7.5
    assert state.pace.left(15.0) == 4.5
    assert state.pace.left(99.0) == 0.0


def test_there_is_no_rate_before_two_reports() -> None:
    pace = update(SearchState(), Progress("baseline", 50, 100), 3.0).pace
    assert pace == Pace("baseline", 50, 100, 3.0, 50, 3.0)
    assert (pace.rate, pace.left(4.0)) == (None, None)


def test_something_else_begins_anew() -> None:
    state = update(SearchState(), Progress("baseline", 100, 100), 1.0)
    state = update(state, Progress("calibration", 5, 10), 2.0)
    assert state.pace == Pace("calibration", 5, 10, 2.0, 5, 2.0)


@pytest.mark.parametrize(
    "event", [BaselineScored("top1", 0.75, 0.125, 0.625), Calibrated(1), TrialStarted(0, "TPE", 2, 0.5)], ids=str
)
def test_an_ended_trial_makes_no_progress(event: Event) -> None:
    assert update(update(SearchState(), Progress("x", 1, 2), 0.0), event, 1.0).pace is None


def test_last_trials_best_and_budget_are_kept(trial: Callable[..., Trial]) -> None:
    state = SearchState()
    best = trial(1, drop=0.0)
    for number in range(RECENT + 2):
        state = update(state, TrialStarted(number, "TPE", 2, 0.5), 100.0 + number)
        state = update(state, TrialEnded(trial(number), best, number + 1, 10.0 * number), 101.0 + number)
    assert [one.number for one in state.recent] == list(range(2, RECENT + 2))
    assert (state.best, state.trials, state.running) == (best, RECENT + 2, None)
    assert state.used_at(108.0 + 5.0) == 70.0 + 5.0


def test_the_budget_begins_with_the_first_trial_and_stops_at_the_end(
    trial: Callable[..., Trial], result: Callable[..., SearchResult]
) -> None:
    state = update(SearchState(), OPENED, 0.0)
    assert state.used_at(50.0) == 0.0
    state = update(state, TrialStarted(0, "TPE", 2, 0.5), 60.0)
    assert state.used_at(63.0) == 3.0
    state = update(state, Finished(result(trial(0), best=trial(0), met=False)), 70.0)
    assert state.used_at(1000.0) == 75.0


def test_a_run_that_goes_on_shows_what_was_before(trial: Callable[..., Trial]) -> None:
    before = tuple(trial(number) for number in range(RECENT + 1))
    state = update(SearchState(), Resumed(before, before[2], 30.0), 5.0)
    assert (state.recent, state.best, state.trials) == (before[1:], before[2], RECENT + 1)
    assert state.used_at(7.0) == 32.0


def test_warnings_add_up() -> None:
    state = update(update(SearchState(), Warned("one"), 0.0), Warned("two"), 1.0)
    assert state.warnings == ("one", "two")


def test_the_split_of_the_data_is_remembered() -> None:
    parts = DataSplit(40, 40, "")
    assert update(update(SearchState(), parts, 0.0), BaselineScored("top1", 0.75, 0.125, 0.625), 1.0).divided == parts
