"""Trials that hang, that die, and users' functions that raise: what they cost, and what goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from fake_search import FakeScorer, fake_session, search_problem

from autoquant.errors import OutOfTime, UserFunctionError
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.targets.base import OnStep
from autoquant.tuning import session as sessions
from autoquant.tuning.alarm import alarm
from autoquant.tuning.result import Ended
from autoquant.tuning.session import Session, TimeLimit
from autoquant.tuning.study.trial import State
from autoquant.tuning.trials import run_trials


class Hooked(FakeScorer):
    """Calls a function before the trial of a number is scored."""

    def __init__(self, scorer: FakeScorer, hooks: dict[int, Callable[[], object]]) -> None:
        super().__init__(scorer.builder, scorer.formula)
        self.hooks, self.calls = hooks, -1

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        """As another, or never."""
        self.calls += 1
        self.hooks.get(self.calls, lambda: None)()
        return super().score(path, rules, on_step, on_progress)


def hooked(
    folder: Path,
    hooks: dict[int, Callable[[], object]],
    *,
    trials: int = 4,
    timeout: float = inf,
    trial_timeout: float = inf,
) -> Session:
    folder.mkdir(exist_ok=True)
    made = fake_session(folder, search_problem(8), "guided", trials=trials)
    assert isinstance(made.scorer, FakeScorer)
    limit = TimeLimit(time.monotonic, time.monotonic(), timeout)
    budget = replace(made.budget, timeout=timeout, trial_timeout=trial_timeout)
    return replace(made, scorer=Hooked(made.scorer, hooks), budget=budget, limit=limit)


def wait_for_a_lock() -> None:
    """A deadlock: this thread waits for itself."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def swallow() -> None:
    """A function that lets nothing pass, once."""
    try:
        time.sleep(1000.0)
    except BaseException:
        time.sleep(1000.0)


@pytest.mark.parametrize(
    "hang", [lambda: time.sleep(1000.0), wait_for_a_lock, swallow], ids=["waits", "locks", "swallows"]
)
def test_a_trial_that_hangs_fails_after_its_time(tmp_path: Path, hang: Callable[[], object]) -> None:
    session = hooked(tmp_path, {1: hang}, trial_timeout=0.3)
    before = signal.getsignal(signal.SIGALRM)
    assert run_trials(session) is Ended.TRIALS
    states = [trial.state for trial in session.study.trials()]
    assert states == [State.DONE, State.FAILED, State.DONE, State.DONE]
    assert session.study.trials()[1].failure == "it took longer than --trial-timeout 0.3s"
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_trial_that_hangs_ends_with_the_search(tmp_path: Path) -> None:
    """It waits to be tried again; what is finished is kept."""
    session = hooked(tmp_path, {1: wait_for_a_lock}, timeout=0.5)
    assert run_trials(session) is Ended.TIMEOUT
    assert [trial.number for trial in session.study.trials()] == [0]
    again = fake_session(tmp_path, search_problem(8), "guided", trials=2)
    assert run_trials(again) is Ended.TRIALS
    assert [trial.number for trial in again.study.trials()] == [0, 1]


def test_the_first_trial_may_take_longer_but_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_trials(hooked(tmp_path / "slow", {0: lambda: time.sleep(0.2)}, timeout=0.1)) is Ended.TIMEOUT
    monkeypatch.setattr(sessions, "SILENCE", 0.2)
    session = hooked(tmp_path / "hangs", {0: wait_for_a_lock}, timeout=0.1)
    assert run_trials(session) is Ended.TIMEOUT
    assert session.study.trials() == ()


def test_an_alarm_of_no_end_sets_none() -> None:
    with alarm(float("inf"), lambda: None):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_progress_ends_a_trial(tmp_path: Path) -> None:
    """There is no alarm there."""
    limit = TimeLimit(lambda: 1.0, begin=0.0, timeout=0.5)
    found: list[str] = []

    def run() -> None:
        try:
            with limit.enforced(), limit.of_trial(float("inf")):
                limit.bounded(lambda done, total: None)(1, 2)
        except OutOfTime:
            found.append("ended")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == ["ended"]


def test_what_a_users_function_raises_fails_no_trial(tmp_path: Path) -> None:
    def away() -> None:
        raise UserFunctionError("mine.py:metric", "raised ConnectionError: away")

    with pytest.raises(UserFunctionError, match="away"):
        run_trials(hooked(tmp_path, {2: away}))
    again = fake_session(tmp_path, search_problem(8), "guided", trials=4)
    assert run_trials(again) is Ended.TRIALS
    (tmp_path / "alone").mkdir()
    alone = fake_session(tmp_path / "alone", search_problem(8), "guided", trials=4)
    run_trials(alone)
    assert [replace(trial, seconds={}) for trial in again.study.trials()] == [
        replace(trial, seconds={}) for trial in alone.study.trials()
    ]
