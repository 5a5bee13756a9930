"""The overview of a run: written at the start and with each new best, never in the way of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import Plan
from autoquant.errors import PlanError, RunError
from autoquant.tuning import overview
from autoquant.tuning.events import Event, TrialEnded, Warned
from autoquant.tuning.overview import LayerFacts, Overview, OverviewFile, load_overview, size_of
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Terms, Trial

OVERVIEW = Overview(
    model="net",
    terms=Terms("top1", 0.75, 0.125, "litert", "litert", "macs"),
    unit="multiply-adds",
    layers=(LayerFacts("conv", "Conv2D", 12, (3, 3, 1, 2)), LayerFacts("x", "BatchMatMulV2", 3, (), "is not constant")),
    engine="litert 2.3.0",
    search_samples=40,
    holdout_samples=0,
    calibration_samples=20,
    no_holdout="too few",
    higher_is_better=False,
    float_bytes=100,
)


@dataclass(frozen=True)
class Session:
    """What of a session is asked."""

    folder: RunFolder
    listener: Callable[[Event], None]
    known_divergences: Callable[[Any], Mapping[str, float] | None]


def ended(number: int, best: int) -> TrialEnded:
    trial = Trial(number, State.STOPPED, Plan({}), "why", parameters={"number": number})
    return TrialEnded(trial, replace(trial, number=best, parameters={"number": best}), number + 1, 1.0)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "overview_of", lambda session: OVERVIEW)


def test_it_is_there_at_once_and_knows_what_is_predicted_for_the_best(tmp_path: Path) -> None:
    heard: list[Event] = []
    known = {0: {"conv": 0.5, "worst": float("inf")}, 1: None}
    session: Any = Session(RunFolder(tmp_path), heard.append, lambda parameters: known[parameters["number"]])
    assert load_overview(session.folder) is None
    listening = OverviewFile(session, None)
    assert load_overview(session.folder) == OVERVIEW
    events = [ended(0, best=0), ended(1, best=0), ended(2, best=1)]
    listening(events[0])
    assert load_overview(session.folder) == replace(OVERVIEW, predicted={"conv": 0.5})
    for event in events[1:]:
        listening(event)
    assert load_overview(session.folder) == OVERVIEW
    assert heard == events
    listening.keep(events[0].best)  # scored on everything at last, which is no event of a trial
    assert load_overview(session.folder) == replace(OVERVIEW, predicted={"conv": 0.5})


def test_it_is_written_where_it_says_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As predictions of the best trial that came after it."""
    written: list[Overview] = []
    monkeypatch.setattr(overview, "save", lambda value, path: written.append(value))
    known: dict[str, float] = {}
    session: Any = Session(RunFolder(tmp_path), lambda event: None, lambda parameters: dict(known))
    listening = OverviewFile(session, None)
    for number in range(3):
        listening(ended(number, best=0))
    best = ended(0, best=0).best
    listening.keep(best)
    assert written == [OVERVIEW]
    known["conv"] = 0.5
    listening.keep(best)
    listening.keep(best)
    assert written == [OVERVIEW, replace(OVERVIEW, predicted={"conv": 0.5})]


def test_trouble_is_a_warning_told_once_and_every_event_is_passed_on(tmp_path: Path) -> None:
    heard: list[Event] = []

    def refused(parameters: Any) -> None:
        raise PlanError("conv", "is gone", hint="none")

    session: Any = Session(RunFolder(tmp_path / "gone"), heard.append, refused)
    listening = OverviewFile(session, None)
    listening(ended(0, best=0))
    texts = [event.text for event in heard if isinstance(event, Warned)]
    assert len(texts) == 2
    assert "overview.json: cannot be written" in texts[0]
    assert texts[1] == "the predictions for the layers cannot be read: conv: is gone; none"
    assert isinstance(heard[-1], TrialEnded)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "overview.json").write_text("{}")
    with pytest.raises(RunError, match=r"overview\.json"):
        load_overview(RunFolder(tmp_path))


def test_sizes_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "model.pb").write_bytes(b"12345")
    (tmp_path / "saved" / "variables" / "data").write_bytes(b"123")
    assert (size_of(tmp_path / "saved"), size_of(tmp_path / "saved" / "model.pb")) == (8, 5)
    assert size_of(tmp_path / "gone") is None
