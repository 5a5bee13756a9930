from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from fake_search import FakeBuilder, FakeScorer, Formula, chain, search_problem
from fleets import RULES
from optuna.storages import InMemoryStorage

from autoquant.calibration.plan import Plan
from autoquant.errors import DataError, RunError, StorageError
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.files import digests_of
from autoquant.quiet import no_progress
from autoquant.targets.base import OnStep
from autoquant.tuning.builder import Builder, Built
from autoquant.tuning.events import Event, Warned, WorkerEnded
from autoquant.tuning.fleet.board import OWNER, WORKER, Board
from autoquant.tuning.fleet.kept_results import RESULTS, Kept, KeptResults
from autoquant.tuning.fleet.messages import Job, Process, WorkerFacts
from autoquant.tuning.fleet.owner import Ended, Fleet
from autoquant.tuning.fleet.work import AtWork, Joined
from autoquant.tuning.study.artifacts import Artifacts
from autoquant.tuning.study.trial import State, Trial, sent_facts
from autoquant.tuning.worker import LocalWorker


@dataclass
class Hooked(FakeScorer):
    """Calls a function before it scores, which may take its time; says what is within tolerance."""

    hook: Callable[[OnProgress], None] = lambda on_progress: None

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        self.hook(on_progress)
        found = super().score(path, rules, on_step, on_progress)
        assert found.drop is not None
        return replace(found, within=found.drop <= rules.max_drop)


class Digesting(FakeBuilder):
    """Says what it wrote, as a builder does."""

    def build(self, plan: Plan, folder: Path, on_step: OnStep = no_progress) -> Built:
        built = super().build(plan, folder, on_step)
        return replace(built, digests=digests_of(sorted(folder.iterdir())))


@dataclass
class Scene:
    """An owner and a worker in a thread."""

    folder: Path
    board: Board = field(default_factory=lambda: Board(InMemoryStorage(), "study"))
    hook: Callable[[OnProgress], None] = lambda on_progress: None
    heard: list[Event] = field(default_factory=list)
    came: list[Any] = field(default_factory=list)
    artifacts: Artifacts | None = None
    kept: KeptResults | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.problem = search_problem(3)
        self.fleet = Fleet(self.board, 0, lambda event: None, time.monotonic, grace=60.0)

    def at_work(self, **options: Any) -> AtWork:
        workload = chain(3)
        builder = Digesting(workload)
        worker = LocalWorker(cast(Builder, builder), Hooked(builder, Formula(workload), self.hook), time.monotonic)
        space = self.problem.space
        facts = WorkerFacts(Process.own())
        kept = self.kept or KeptResults(self.folder, "a search")
        joined = Joined(self.board, facts, worker, space, self.folder, kept, artifacts=self.artifacts)
        return AtWork(joined, self.heard.append, period=0.02, **options)

    @contextmanager
    def working(self, **options: Any) -> Iterator[threading.Thread]:
        at_work = self.at_work(**options)

        def run() -> None:
            try:
                self.came.append(at_work.run())
            except BaseException as error:
                self.came.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield thread
        self.fleet.look()
        self.fleet.close("it is enough")
        thread.join(10.0)
        assert not thread.is_alive()

    def trial(self, number: int) -> Trial:
        parameters = next(self.problem.space.starts()).parameters
        return Trial(number, State.RUNNING, self.problem.space.plan(parameters), "a test", parameters=parameters)

    def give(self, number: int, seconds: float | None = None, rules: StoppingRules = RULES) -> None:
        self.fleet.give(self.trial(number), rules, seconds)

    def until(self, happened: Callable[[], bool]) -> list[Trial]:
        return [one.trial for one in self.ended(happened)]

    def ended(self, happened: Callable[[], bool]) -> list[Ended]:
        ended: list[Ended] = []
        for _ in range(1000):
            ended += self.fleet.look()
            if happened() or (ended and happened is _ended):
                return ended
            time.sleep(0.01)
        raise AssertionError("it did not happen within 10 s")

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.heard if isinstance(event, Warned)]


def _ended() -> bool:
    return False


def test_a_worker_carries_out_what_it_is_given(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.working():
        scene.until(lambda: scene.fleet.free == 1)
        for number in (0, 1):
            scene.give(number)
            (trial,) = scene.until(_ended)
            expected = scene.trial(number)
            assert (trial.number, trial.plan, trial.state) == (number, expected.plan, State.DONE)
            assert trial.drop is not None and trial.samples == 1000 and trial.divergences
    assert scene.came == ["the search has ended: it is enough"]
    assert [event.trials for event in scene.heard if isinstance(event, WorkerEnded)] == [1, 2]
    assert scene.board.everybody()[0].said["left"] == "the search has ended: it is enough"


@pytest.mark.parametrize(
    ("improves", "max_drop", "closest", "is_left"),
    [
        (True, 1.0, None, True),
        (False, 1.0, None, False),
        (True, 0.0, None, False),
        (True, 0.0, 1.0, True),
        (True, 0.0, 1e-9, False),
    ],
)
def test_files_of_what_may_be_the_best_are_left_for_the_owner(
    tmp_path: Path, improves: bool, max_drop: float, closest: float | None, is_left: bool
) -> None:
    """Or the closest, while none is within tolerance. Nothing stays here: the owner does not have this disk."""
    artifacts = Artifacts(str(tmp_path / "place"), "night")
    artifacts.make()
    scene = Scene(tmp_path / "own", artifacts=artifacts)
    scene.fleet.give(scene.trial(3), replace(RULES, improves=improves, max_drop=max_drop), None, closest)
    with scene.working():
        (ended,) = scene.ended(_ended)
    assert not list(scene.folder.iterdir()) and not scene.warnings
    if not is_left:
        assert not ended.files and not list((tmp_path / "place" / "night-artifacts").iterdir())
        return
    assert ended.trial.digests.items() <= ended.files.items() and len(ended.trial.digests) == 3
    artifacts.take(3, ended.files, tmp_path)
    assert digests_of(tmp_path / name for name in ended.files) == ended.files


def test_a_place_that_cannot_be_used_loses_no_result(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "own", artifacts=Artifacts(str(tmp_path / "place"), "night"))
    scene.give(0, rules=replace(RULES, max_drop=1.0))
    with scene.working():
        (ended,) = scene.ended(_ended)
    assert ended.trial.state is State.DONE and not ended.files
    (text,) = scene.warnings
    assert text.startswith("storing the files of trial 0 failed, so the search builds them again: ")
    assert "is not there; is the disk mounted" in text


@pytest.mark.parametrize(
    ("options", "why"), [({"max_trials": 1}, "carried out 1 trials"), ({"idle": 0.05}, "had nothing to do for 0.05 s")]
)
def test_a_worker_leaves_when_it_was_told_to(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    scene = Scene(tmp_path)
    scene.give(0)
    with scene.working(**options) as thread:
        scene.until(_ended)
        thread.join(10.0)
    assert scene.came == [why]


def test_a_worker_that_is_sent_away_says_why(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.working() as thread:
        scene.until(lambda: scene.fleet.free == 1)
        scene.board.say(scene.fleet.workers[0].member, "job", {"refused": "all of its trials failed"})
        thread.join(10.0)
    (error,) = scene.came
    assert isinstance(error, RunError) and "all of its trials failed" in str(error)


def test_what_is_not_the_fault_of_the_plan_ends_the_worker_and_gives_the_trial_back(tmp_path: Path) -> None:
    def unreadable(on_progress: OnProgress) -> None:
        raise DataError("data.npz", "cannot be read")

    scene = Scene(tmp_path, hook=unreadable)
    scene.give(0)
    with scene.working() as thread:
        scene.until(lambda: bool(scene.came))
        thread.join(10.0)
    assert isinstance(scene.came[0], DataError) and scene.fleet.running == 1
    assert scene.board.everybody()[0].said["left"] == "left: data.npz: cannot be read"


def test_a_job_that_is_recalled_ends_at_its_next_step(tmp_path: Path) -> None:
    begun = threading.Event()

    def slow(on_progress: OnProgress) -> None:
        begun.set()
        for step in range(1000):
            on_progress(step, 1000)
            time.sleep(0.01)

    scene = Scene(tmp_path, hook=slow)
    scene.give(0)
    with scene.working():
        scene.until(begun.is_set)
        scene.fleet.recall()
        scene.until(lambda: any("wants trial 0" in text for text in scene.warnings))
        scene.until(lambda: scene.fleet.workers[0].doing == "waiting")
    assert scene.came == ["the search has ended: it is enough"]


def test_the_late_result_of_a_worker_that_was_given_up_is_dropped(tmp_path: Path) -> None:
    """It says so, and joins again."""
    begun, go_on = threading.Event(), threading.Event()

    def hang(on_progress: OnProgress) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(10.0)

    scene = Scene(tmp_path, hook=hang)
    scene.give(0)
    with scene.working():
        scene.until(begun.is_set)
        first = scene.fleet.workers[0]
        scene.board.leave(first.member, dead=True)
        scene.until(lambda: not scene.fleet.workers)
        go_on.set()
        (trial,) = scene.until(_ended)
    assert trial.number == 0 and len(scene.board.everybody()) == 2
    assert "result" not in scene.board.read(first.member)
    (text,) = scene.warnings
    assert "gave it up: its result of trial 0 is dropped; joining again" in text
    assert not list(tmp_path.glob(RESULTS))


def test_a_result_that_could_not_be_told_waits_for_the_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is given the trial as others are, tells the result, and computes nothing; the dead is declared dead."""
    say, away = Board.say, [True]

    def cut_off(board: Board, member: int, key: str, value: Any) -> None:
        if key in ("result", "left") and away:
            raise StorageError("db", "was away for 10m00s")
        say(board, member, key, value)

    monkeypatch.setattr(Board, "say", cut_off)
    scene = Scene(tmp_path)
    scene.give(0)
    with scene.working() as thread:
        scene.until(lambda: bool(scene.came))
        thread.join(10.0)
    assert isinstance(scene.came[0], StorageError) and not scene.warnings
    assert [path.name for path in tmp_path.glob(RESULTS)] == ["result-0000.json"]
    (dead,) = scene.board.members(WORKER)

    def no_more(on_progress: OnProgress) -> None:
        raise AssertionError("it is scored again")

    away.clear()
    kept = KeptResults(tmp_path, "a search")
    kept._kept[0] = cast(Kept, kept._read(tmp_path / "result-0000.json"))
    scene.hook, scene.kept = no_more, kept
    with scene.working():
        (trial,) = scene.until(_ended)
    assert trial.state is State.DONE and trial.samples == 1000
    assert scene.warnings == ["trial 0 was carried out here before: its result is told now"]
    assert not scene.board.find(dead.id).here and not list(tmp_path.glob(RESULTS))


def test_a_result_that_the_search_has_ended_without_is_dropped(tmp_path: Path) -> None:
    scene = Scene(tmp_path, kept=KeptResults(tmp_path, "a search"))
    assert scene.kept is not None
    scene.kept.keep(Job("0.1", sent_facts(scene.trial(3)), RULES), 77, {})
    with scene.working():
        scene.until(lambda: scene.fleet.free == 1)
    assert scene.came == ["the search has ended: it is enough"] and not list(tmp_path.glob(RESULTS))
    assert scene.warnings == ["the result of trial 3 that was kept here is dropped: the search has ended without it"]


def test_a_disk_that_is_full_keeps_no_result_but_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RunError("/tmp", "cannot be written (No space left on device)")

    monkeypatch.setattr(KeptResults, "keep", full)
    scene = Scene(tmp_path)
    scene.give(0)
    with scene.working():
        (trial,) = scene.until(_ended)
    assert trial.state is State.DONE
    assert scene.warnings[0].startswith("the result of trial 0 is lost if it cannot be told: /tmp: cannot be written")


def test_a_trial_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    def slow(on_progress: OnProgress) -> None:
        for step in range(1000):
            on_progress(step, 1000)
            time.sleep(0.01)

    scene = Scene(tmp_path, hook=slow)
    with scene.working():
        scene.give(0, seconds=0.05)
        (trial,) = scene.until(_ended)
    assert (trial.state, trial.failure) == (State.FAILED, "it took longer than --trial-timeout 0.05s")


def test_a_worker_that_joins_too_late_leaves_by_itself(tmp_path: Path) -> None:
    """As one does that was stopped until after the end; but not where a search was resumed."""
    scene = Scene(tmp_path)
    for why, came in (("ended", "the search has ended"), ("was interrupted", "had nothing to do for 0.05 s")):
        owner = scene.board.join(OWNER, {})
        scene.board.say(owner, "left", why)
        scene.board.leave(owner)
        assert scene.at_work(idle=0.05).run() == came


def test_a_worker_waits_for_ever_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    assert Scene(tmp_path).at_work()._idle == math.inf
