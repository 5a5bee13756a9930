"""When a report is written while a search goes on: counted with a clock of the test's own, and no page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import Plan
from autoquant.reports import writer
from autoquant.reports.writer import OFTEN, SELDOM, SHARE, ReportWriter
from autoquant.tuning.events import Event, Finished, Opened, Progress, TrialEnded, Warned
from autoquant.tuning.phases import load_phases
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Trial


class Search:
    """A search whose clock the test moves on; a page takes `cost` seconds, and is counted with the time it began."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, cost: float = 0.0) -> None:
        self.now = 0.0
        self.pages: list[tuple[float, bool]] = []
        self.heard: list[Event] = []
        self.cost = cost
        self.folder = folder
        monkeypatch.setattr(writer, "page_writer", self.page_writer)
        self.tell: Callable[[Event], None] = ReportWriter(self.heard.append, lambda: self.now)
        self.tell(Opened(folder, "net", 1, 1, 1, 1, 1, 1.0))

    def page_writer(self, folder: RunFolder) -> Callable[[bool], None]:
        assert folder.path == self.folder

        def write(going_on: bool) -> None:
            self.pages.append((self.now, going_on))
            self.now += self.cost

        return write

    def ended(self, number: int, *, best: int, after: float = 1.0) -> None:
        self.now += after
        trials = (replace(Trial(one, State.STOPPED, Plan({}), "why"), samples=10) for one in (number, best))
        self.tell(TrialEnded(next(trials), next(trials), number + 1, self.now))


def test_the_first_trial_and_each_new_best_but_not_too_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, monkeypatch)
    search.ended(0, best=0)
    search.ended(1, best=1)
    assert [at for at, _ in search.pages] == [1.0]
    search.ended(2, best=2, after=OFTEN)
    assert [at for at, _ in search.pages] == [1.0, 2.0 + OFTEN]


def test_without_a_new_best_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, monkeypatch)
    for number in range(1 + 3 * int(SELDOM)):
        search.ended(number, best=0)
    assert [at for at, _ in search.pages] == [1.0, 1.0 + SELDOM, 1.0 + 2 * SELDOM, 1.0 + 3 * SELDOM]


def test_reports_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, monkeypatch, cost=5.0)
    for number in range(2000):
        search.ended(number, best=number)
    assert len(search.pages) > 1
    assert search.cost * (len(search.pages) - 1) <= SHARE * search.now


def test_the_last_one_says_that_it_is_over_before_the_screen_hears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path, monkeypatch)
    search.ended(0, best=0)
    over: Any = Finished
    search.tell(over(None))
    assert [going_on for _, going_on in search.pages] == [True, False]
    assert isinstance(search.heard[-1], Finished)


def test_phases_are_kept_beside_it_and_added_to_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for times in (1, 2):
        search = Search(tmp_path, monkeypatch)
        search.tell(Progress("baseline", 0, 100))
        search.now += 4.0
        search.tell(Progress("trial 0", 0, 100))
        search.ended(0, best=0, after=2.0)
        found = load_phases(tmp_path / "phases.json")
        assert (found.seconds["baseline"], found.seconds["trials"]) == (4.0 * times, 2.0 * times)
        assert found.samples["trials"] == 10 * times


def test_a_folder_that_cannot_be_written_is_a_warning_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path / "gone", monkeypatch)
    search.ended(0, best=0)
    search.ended(1, best=1, after=OFTEN)
    told = [event.text for event in search.heard if isinstance(event, Warned)]
    assert len(told) == 1
    assert "report.html could not be written: RunError" in told[0]
    assert "phases.json" in told[0]
