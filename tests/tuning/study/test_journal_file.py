from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial

from autoquant.tuning.fleet.board import WORKER
from autoquant.tuning.fleet.storages import meet_in_folder
from autoquant.tuning.study.journal import NAME, Journal, open_study
from autoquant.tuning.study.journal_file import JournalFile
from autoquant.tuning.study.run_folder import RunFolder

RECORDS: list[dict[str, Any]] = [
    {"op_code": number % 3, "worker_id": "a", "value": {'{"op_code":': 'it said "\n{"op_code":1}"'}}
    for number in range(6)
]


def line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def records(journal: JournalFile, start: int = 0) -> list[dict[str, Any]]:
    return list(journal.read_logs(start))


def test_it_is_the_file_of_optuna(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    own, plain = JournalFile(path), JournalFileBackend(path)
    own.append_logs(RECORDS[:2])
    plain.append_logs(RECORDS[2:4])
    own.append_logs(RECORDS[4:])
    assert records(own) == list(plain.read_logs(0)) == RECORDS
    assert records(own, 4) == RECORDS[4:] and records(own, 6) == []


@given(st.data())
def test_half_lines_cost_no_whole_one(data: st.DataObject) -> None:
    """Wherever a process died, and whether another noticed it before it wrote; readers that went along see the same."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        along, seen, written = JournalFile(str(path)), list[dict[str, Any]](), list[dict[str, Any]]()
        for record in RECORDS:
            whole = line(record)
            cut = data.draw(st.integers(0, len(whole) - 1))
            with path.open("ab") as file:
                file.write(whole[:cut])
            if cut == len(whole) - 1:  # all of it is there but the end of the line
                written.append(record)
            seen += records(along, len(seen))
            if data.draw(st.booleans()):
                JournalFile(str(path)).append_logs([record])
            else:
                with path.open("ab") as file:
                    file.write(b"\n" * (cut == len(whole) - 1) + whole)
            written.append(record)
            seen += records(along, len(seen))
        assert records(JournalFile(str(path))) == written == seen


def test_a_reader_goes_on_where_it_left_off_in_the_middle(tmp_path: Path) -> None:
    """As a storage does, when a record is refused that it wrote itself."""
    journal = JournalFile(str(tmp_path / "journal"))
    journal.append_logs(RECORDS)
    reading: Iterator[dict[str, Any]] = journal.read_logs(0)
    assert [next(reading), next(reading)] == RECORDS[:2]
    assert records(journal, 2) == RECORDS[2:] and records(journal, 1) == RECORDS[1:]


def test_whoever_lost_the_lock_has_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped in a write for so long that another took its lock away."""
    journal = JournalFile(str(tmp_path / "journal"))
    fsync = os.fsync

    def stopped(descriptor: int) -> None:
        (tmp_path / "journal.lock").unlink()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", stopped)
    journal.append_logs(RECORDS[:1])
    journal.append_logs(RECORDS[1:2])
    assert records(journal) == RECORDS[:2]


def _killed_while_it_writes(act: Callable[[], object]) -> None:
    """Do something in a process that dies of SIGKILL in the middle of its next record, with the lock."""
    write = os.write
    if (pid := os.fork()) == 0:
        try:

            def half(self: JournalFile, logs: list[dict[str, Any]]) -> None:
                self._lock.acquire()
                descriptor = os.open(self._file_path, os.O_WRONLY | os.O_APPEND)
                write(descriptor, line(logs[0])[:-20])
                os.kill(os.getpid(), signal.SIGKILL)

            JournalFile.append_logs = half  # type: ignore[method-assign]
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_worker_killed_in_a_line_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoquant.tuning.fleet.storages.LOCK_SECONDS", 3)
    folder = RunFolder(tmp_path)
    one, other = meet_in_folder(folder).board, meet_in_folder(folder).board
    first, second = one.join(WORKER, {"host": "a"}), other.join(WORKER, {"host": "b"})
    one.say(first, "result", {"drop": 0.25})
    _killed_while_it_writes(lambda: meet_in_folder(folder).board.say(first, "result", {"drop": 0.5}))
    other.say(second, "result", {"drop": 0.75})
    with folder.workers.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"x","trial_id":0,"user_at')
    for board in (one, other, meet_in_folder(folder).board):
        assert [member.said["result"]["drop"] for member in board.members(WORKER)] == [0.25, 0.75]
    one.say(first, "result", {"drop": 1.0})
    assert [member.said["result"]["drop"] for member in other.members(WORKER)] == [1.0, 0.75]


def test_a_study_goes_on_behind_half_a_line_of_another(tmp_path: Path) -> None:
    """As of what shows studies to people, and stores their notes."""
    path = tmp_path / "study.journal"
    warnings: list[str] = []
    study = open_study(JournalStorage(Journal(path, warnings.append)))
    study.add_trial(create_trial(value=0.5))
    with path.open("ab") as file:
        file.write(b'{"op_code":2,"worker_id":"x","stu')
        file.write(line({"op_code": 2, "worker_id": "x", "study_id": 0, "user_attr": {"note": "good"}}))
    study.add_trial(create_trial(value=0.25))
    again = open_study(JournalStorage(Journal(path, warnings.append)))
    assert study.user_attrs == again.user_attrs == {"note": "good"} and again.study_name == NAME
    assert [trial.value for trial in again.trials] == [trial.value for trial in study.trials] == [0.5, 0.25]
    assert not warnings
