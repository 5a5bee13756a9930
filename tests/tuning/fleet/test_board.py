from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from databases import Server

from autoquant.tuning.fleet.board import LONGEST, OWNER, WORKER, Board, Dismissed
from autoquant.tuning.fleet.storages import Meeting, meet_in_database, meet_in_folder
from autoquant.tuning.study.run_folder import RunFolder

Meet = Callable[[], Meeting]


def test_what_one_process_says_others_read(meet: Meet) -> None:
    one, other = meet().board, meet().board
    member = one.join(WORKER, {"host": "a"})
    one.say(member, "result", {"drop": 0.25, "digests": {"model": "ab"}})
    (found,) = other.members(WORKER)
    assert (found.id, found.beat, found.doing, found.here) == (member, 0, "", True)
    assert found.said["about"] == {"host": "a"} and other.read(member)["result"]["drop"] == 0.25
    assert other.members(OWNER) == []


def test_what_is_long_is_said_in_parts(meet: Meet) -> None:
    """MySQL takes no longer attributes; what was said before counts until all of it is there."""
    one, other = meet().board, meet().board
    member = one.join(WORKER, {})
    for long in ({"a": 'it said "no"' * 9000}, {"a": ["x" * LONGEST] * 3}, {"a": 1}):
        one.say(member, "job", long)
        assert other.read(member)["job"] == long == other.members(WORKER)[0].said["job"]
    assert set(other.read(member)) == {"role", "about", "beat", "job"}


def test_several_that_join_at_once_have_numbers_of_their_own(meet: Meet) -> None:
    boards = [meet().board for _ in range(4)]
    made: list[int] = []
    threads = [threading.Thread(target=lambda own=own: made.append(own.join(WORKER, {}))) for own in boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    members = meet().board.members(WORKER)
    assert len(set(made)) == 4 == len({one.number for one in members})
    assert sorted(made) == sorted(one.id for one in members)


@pytest.mark.parametrize("dead", [True, False])
def test_one_that_was_dismissed_can_say_no_more(meet: Meet, dead: bool) -> None:
    worker, owner = meet().board, meet().board
    member = worker.join(WORKER, {})
    owner.leave(member, dead=dead)
    assert owner.members(WORKER) == [] and not owner.find(member).here
    with pytest.raises(Dismissed):
        worker.say(member, "result", 1)
    worker.leave(member)
    assert "result" not in owner.read(member) and [one.number for one in owner.everybody()] == [0]


def test_signs_of_life_go_on_while_a_process_works(meet: Meet) -> None:
    worker, owner = meet().board, meet().board
    heard: list[Mapping[str, Any]] = []
    member = worker.join(WORKER, {})
    with worker.alive(member, lambda: "trial 3", heard=heard.append, period=0.02) as gone:
        _until(lambda: owner.find(member).beat >= 2)
        assert owner.find(member).doing == "trial 3" and not gone.is_set()
        owner.say(member, "job", "new")
        _until(lambda: heard[-1].get("job") == "new")
        owner.leave(member, dead=True)
        assert gone.wait(10.0)
    beat = owner.find(member).beat
    time.sleep(0.1)
    assert owner.find(member).beat == beat


def test_a_board_is_that_of_one_study(board: Board) -> None:
    board.join(WORKER, {})
    assert Board(board._storage, "another").members(WORKER) == []


def _until(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


def test_the_lock_of_a_process_that_was_killed_while_it_wrote_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder of the run is a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("autoquant.tuning.fleet.storages.LOCK_SECONDS", 3)
    Path("run").mkdir()
    board = meet_in_folder(RunFolder(Path("run"))).board
    member = board.join(WORKER, {})
    (tmp_path / "run" / "workers.journal.lock").symlink_to(tmp_path / "run" / "workers.journal")
    board.say(member, "job", 1)
    assert board.read(member)["job"] == 1


def test_studies_beside_that_of_a_search_say_what_they_are(server: Server) -> None:
    """Files are no attributes that people are shown."""
    name, content = uuid.uuid4().hex, random.Random(0).randbytes(100_000)
    with closing(meet_in_database(server.url, name)) as meeting:
        meeting.board.join(OWNER, {})
        assert meeting.shelf is not None
        digest = meeting.shelf.put(content)
        assert meeting.shelf.get(digest) == [content]
        shown = {one.study_name: one.user_attrs for one in meeting.storage.get_all_studies() if name in one.study_name}
    assert shown == {
        f"{name}-workers": {"purpose": f"owner and workers of {name}, each a trial, and what they tell each other"},
        f"{name}-files": {"purpose": f"files of {name} that its workers need"},
    }
