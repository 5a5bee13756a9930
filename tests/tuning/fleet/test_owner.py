from __future__ import annotations

from typing import Any

import pytest
from fleets import RULES, Played, PlayedFleet, trial_of
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from autoquant.tuning.fleet.board import Board, Dismissed
from autoquant.tuning.study.trial import State


@pytest.fixture
def played(board: Board) -> PlayedFleet:
    return PlayedFleet(board)


def test_a_trial_goes_to_a_worker_and_its_end_comes_back(played: PlayedFleet) -> None:
    worker = Played(played.board)
    assert played.look() == [] and played.fleet.free == 1
    played.give(4)
    assert (played.fleet.free, played.fleet.running) == (0, 1)
    assert (worker.job.trial["number"], worker.job.rules, worker.job.seconds) == (4, RULES, 60.0)
    worker.end(drop=0.25)
    (ended,) = played.look()
    assert (ended.number, ended.state, ended.drop, ended.parameters) == (4, State.DONE, 0.25, {"batch_num": 4})
    assert (played.fleet.free, played.fleet.running) == (1, 0)
    assert played.look() == [], "it is told once"


def test_a_trial_waits_for_a_worker(played: PlayedFleet) -> None:
    played.give(0)
    assert (played.fleet.free, played.fleet.running) == (-1, 1)
    worker = Played(played.board)
    assert played.look() == [] and worker.job.trial["number"] == 0


@pytest.mark.parametrize("beats", [0, 5])
def test_the_trial_of_a_silent_worker_is_given_to_another_after_the_grace(played: PlayedFleet, beats: int) -> None:
    silent, other = Played(played.board), Played(played.board, "b")
    played.look()
    played.give(0, 1)
    played.pass_time(beats, silent, other)
    played.pass_time(30, other)
    assert len(played.fleet.workers) == 2, "not before the grace is over"
    played.pass_time(1, other)
    assert [worker.host for worker in played.fleet.workers] == ["b"]
    assert other.job.trial["number"] == 1
    other.end()
    assert [trial.number for trial in played.look()] == [1]
    assert other.job.trial["number"] == 0 and "gave no sign of life for 30 s" in played.warnings[0]
    with pytest.raises(Dismissed):
        silent.end()
    other.end()
    assert [trial.number for trial in played.look()] == [0]


def test_an_outage_of_the_storage_shortens_no_grace(played: PlayedFleet) -> None:
    """Nor does an owner that was stopped, or builds a model for long: it did not listen."""
    worker = Played(played.board)
    played.look()
    played.give(0)
    for away in (1, 1, 2, 3):
        played.pass_time(20)
        played.away = away
        played.now += 100.0
        played.look()
    assert len(played.fleet.workers) == 1
    played.pass_time(31)
    assert not played.fleet.workers
    assert worker.job.trial["number"] == 0


def test_a_worker_that_leaves_gives_its_trial_back_at_once(played: PlayedFleet) -> None:
    one = Played(played.board)
    played.look()
    played.give(0)
    two = Played(played.board)
    one.leave()
    played.look()
    assert two.job.trial["number"] == 0
    assert played.warnings == ["worker 0 on a (process 7) was interrupted: trial 0 is carried out by another"]


def test_the_last_result_of_one_that_leaves_is_taken(played: PlayedFleet) -> None:
    worker = Played(played.board)
    played.look()
    played.give(0)
    worker.end()
    worker.leave("carried out 1 trials")
    assert [trial.number for trial in played.look()] == [0] and not played.fleet.workers


def test_a_trial_that_workers_die_of_has_failed(played: PlayedFleet) -> None:
    played.give(0)
    for _ in range(3):
        Played(played.board)
        played.look()
        assert played.fleet.running == 1
        ended = played.pass_time(31)
    assert [(trial.state, trial.failure) for trial in ended] == [(State.FAILED, "its process died 3 times")]


def test_leaving_is_no_death(played: PlayedFleet) -> None:
    played.give(0)
    for _ in range(5):
        worker = Played(played.board)
        played.look()
        worker.leave("was preempted")
        assert played.look() == []
    assert played.fleet.running == 1


def test_a_machine_on_which_every_trial_fails_is_sent_away_and_rules_no_plan_out(played: PlayedFleet) -> None:
    sick, sound = Played(played.board, "sick"), Played(played.board, "sound")
    played.look()
    played.give(0, 1)
    sound.end()
    played.look()
    ended: list[Any] = []
    for number in (2, 3, 4):
        assert sick.job.trial["number"] == {2: 0}.get(number, number - 1)
        sick.end(failure="no memory")
        played.look()  # what failed there goes to the other machine
        sound.end()
        ended += played.look()
        played.give(number)
    assert all(trial.state is State.DONE for trial in ended)
    assert sick.said == {"refused": "all of its trials failed, the last of them: no memory"}
    assert [worker.host for worker in played.fleet.workers] == ["sound"]
    again = Played(played.board, "sick")
    played.look()
    assert "refused" in again.said and len(played.fleet.workers) == 1


def test_a_plan_that_fails_on_two_machines_has_failed(played: PlayedFleet) -> None:
    one, other = Played(played.board, "a"), Played(played.board, "b")
    played.look()
    played.give(0)
    one.end(failure="overflow")
    assert played.look() == []
    assert other.job.trial["number"] == 0
    other.end(failure="overflow")
    assert [trial.failure for trial in played.look()] == ["overflow"]


@pytest.mark.parametrize("facts", [{}, {"at_fault": "conv1"}])
def test_a_plan_that_fails_where_others_end_well_has_failed(played: PlayedFleet, facts: dict[str, Any]) -> None:
    worker, _ = Played(played.board, "a"), Played(played.board, "b")
    played.look()
    played.give(0)
    if not facts:
        worker.end()
        played.look()
        played.give(1)
    worker.end(failure="overflow", **facts)
    assert [trial.failure for trial in played.look()] == ["overflow"]


def test_a_new_owner_takes_over_what_workers_carry_out(played: PlayedFleet) -> None:
    one, two = Played(played.board), Played(played.board)
    played.look()
    played.give(0, 1)
    before = one.job.name, two.job.name
    two.end()
    played.fleet = played.owned(1)
    played.look()
    assert played.fleet.free == 2
    played.give(1, 0)
    assert (one.job.name, two.job.name) == before, "neither begins again"
    assert [trial.number for trial in played.look()] == [1]
    one.end()
    assert [trial.number for trial in played.look()] == [0]
    played.give(2)
    assert one.job.name not in before


def test_what_is_recalled_is_heard_no_more(played: PlayedFleet) -> None:
    worker = Played(played.board)
    played.look()
    played.give(0)
    job = worker.job
    played.fleet.recall()
    assert worker.said is None and played.fleet.running == 0
    played.board.say(worker.member, "job", {"name": job.name, "trial": job.trial, "rules": {}})
    worker.board.say(worker.member, "result", {"job": job.name, "trial": {}})
    assert played.look() == []


Steps = st.lists(
    st.tuples(st.sampled_from(["end", "fail", "silence", "leave", "join", "give", "away"]), st.integers(0, 3))
)


@settings(max_examples=200, deadline=None)
@given(Steps)
def test_whatever_happens_each_trial_ends_once_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    played = PlayedFleet(Board(InMemoryStorage(), "study"))
    here: list[Played] = []
    given_numbers, ended = 0, list[int]()

    def look() -> None:
        ended.extend(trial.number for trial in played.look())
        members = {one.member for one in played.fleet.workers}
        here[:] = [one for one in here if one.member in members]
        busy = [one.trial for one in played.fleet.workers if one.trial is not None]
        assert len(busy) == len(set(busy)), "no trial is with two workers"

    for what, which in steps:
        chosen = here[which % len(here)] if here else None
        busy = chosen is not None and chosen.said is not None and "name" in chosen.said
        if what == "join":
            here.append(Played(played.board, f"host {which}"))
        elif what == "give" and played.fleet.free > 0:
            played.give(given_numbers)
            given_numbers += 1
        elif what == "away":
            played.away += 1
        elif chosen is not None and what == "leave":
            chosen.leave()
        elif chosen is not None and what == "silence":
            ended.extend(one.number for one in played.pass_time(31, *(one for one in here if one is not chosen)))
        elif chosen is not None and busy and what in ("end", "fail"):
            chosen.end(failure="no memory" if what == "fail" else "")
        look()
        assert played.fleet.running + len(ended) == given_numbers
    for _ in range(40):
        here.append(Played(played.board, "the last"))
        look()
        for one in here:
            if one.said is not None and "name" in one.said:
                one.end()
        look()
    assert sorted(ended) == list(range(given_numbers))


def test_trials_of_a_test_are_running() -> None:
    assert trial_of(3).state is State.RUNNING


def test_a_trial_is_given_to_the_worker_that_has_its_result(board: Board) -> None:
    """It says so when it joins; others have as little to do."""
    played = PlayedFleet(board)
    first = Played(board)
    played.look()
    played.give(7)
    played.look()
    assert first.job.trial["number"] == 7
    others = [Played(board, host="b"), Played(board, host="c", kept=(7,))]
    board.leave(first.member, dead=True)
    played.look()
    assert others[0].said is None and others[1].job.trial["number"] == 7
