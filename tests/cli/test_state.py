from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autoquant.cli.state import RECENT, Pace, SearchState, facts, phase, update
from autoquant.tuning.events import (
    OPENING,
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
    assert state.pace.left(99.0) is None  # it takes longer than the rate said


def test_there_is_no_rate_before_two_reports() -> None:
    pace = update(SearchState(), Progress("baseline", 50, 100), 3.0).pace
    assert pace == Pace("baseline", 50, 100, 3.0, 50, 3.0)
    assert (pace.rate, pace.left(4.0)) == (None, None)


@pytest.mark.parametrize(
    ("pace", "now", "words"),
    [
        (Pace("loading", 0, 0, 1.0, 0, 1.0), 35.0, "34s so far"),
        (Pace("layers", 0, 16, 1.0, 0, 1.0), 2.0, "0/16"),
        (Pace("layers", 0, 16, 1.0, 0, 1.0), 41.0, "0/16  40s so far"),
        (Pace("layers", 4, 16, 41.0, 0, 1.0), 46.0, "4/16  6.0/min  1m55s left"),
        (Pace("layers", 4, 16, 3.0, 0, 1.0), 5.0, "4/16  2.0/s  4.0s left"),
        (Pace("layers", 4, 16, 3.0, 0, 1.0), 99.0, "4/16  2.0/s  1m38s so far"),
        (Pace("layers", 16, 16, 9.0, 0, 1.0), 9.5, "16/16  2.0/s"),
        (Pace("layers", 16, 16, 9.0, 0, 1.0), 149.0, "2m28s so far"),
        (Pace("layers", 16, 16, 9.0, 16, 9.0), 149.0, "2m20s so far"),
    ],
)
def test_what_is_said_of_a_phase_is_true(pace: Pace, now: float, words: str) -> None:
    assert pace.words(now) == words


def test_steps_that_can_be_counted_at_last_have_a_rate_of_their_own() -> None:
    state = update(SearchState(), Progress("calibration", 0, 0), 1.0)
    for now, done in ((31.0, 0), (32.0, 8)):
        state = update(state, Progress("calibration", done, 64), now)
    assert state.pace == Pace("calibration", 8, 64, 32.0, 0, 31.0)


def test_something_goes_on_where_no_phase_is_told_of() -> None:
    state = update(update(SearchState(), Progress("baseline", 80, 80), 1.0), Calibrated(1), 2.0)
    assert phase(state, 7.0) == ("working", "5.0s so far")
    assert phase(update(state, TrialStarted(3, "TPE", 2, 0.5), 8.0), 20.0) == ("trial 3", "12s so far")


def test_something_else_begins_anew() -> None:
    state = update(SearchState(), Progress("baseline", 100, 100), 1.0)
    state = update(state, Progress("calibration", 5, 10), 2.0)
    assert state.pace == Pace("calibration", 5, 10, 2.0, 5, 2.0)


@pytest.mark.parametrize(
    "event", [BaselineScored("top1", 0.75, 0.125), Calibrated(1), TrialStarted(0, "TPE", 2, 0.5)], ids=str
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


def test_the_time_of_the_budget_is_that_of_the_search_all_along(
    trial: Callable[..., Trial], result: Callable[..., SearchResult]
) -> None:
    """From opening the model to the end, which the result then tells: as --timeout counts it."""
    state = update(SearchState(), Progress("loading TensorFlow", 0, 0), 0.0)
    assert state.used_at(10.0) == 0.0
    state = update(state, Progress(OPENING, 0, 0), 30.0)
    state = update(state, OPENED, 40.0)
    assert state.used_at(50.0) == 20.0
    state = update(state, TrialStarted(0, "TPE", 2, 0.5), 60.0)
    assert state.used_at(63.0) == 33.0
    state = update(state, TrialEnded(trial(0), None, 1, 40.5), 70.0)
    assert state.used_at(71.0) == 41.5
    state = update(state, Finished(result(trial(0), best=trial(0), met=False)), 75.0)
    assert state.used_at(1000.0) == 75.0


def test_a_run_that_goes_on_shows_what_was_before(trial: Callable[..., Trial]) -> None:
    before = tuple(trial(number) for number in range(RECENT + 1))
    state = update(SearchState(), Progress(OPENING, 0, 0), 2.0)
    state = update(state, Resumed(before, before[2], 30.0), 5.0)
    assert (state.recent, state.best, state.trials) == (before[1:], before[2], RECENT + 1)
    assert state.used_at(7.0) == 35.0


def test_warnings_add_up() -> None:
    state = update(update(SearchState(), Warned("one"), 0.0), Warned("two"), 1.0)
    assert state.warnings == ("one", "two")


def test_the_split_of_the_data_is_remembered() -> None:
    parts = DataSplit(40, 40, "")
    assert update(update(SearchState(), parts, 0.0), BaselineScored("top1", 0.75, 0.125), 1.0).divided == parts


def test_what_is_cached_is_said() -> None:
    cached = update(SearchState(), replace(OPENED, cached=7_500_000_000), 0.0)
    assert ("cache", "7.5 GB of samples, removed at the end") in list(facts(cached))
    assert "cache" not in dict(facts(update(SearchState(), OPENED, 0.0)))
