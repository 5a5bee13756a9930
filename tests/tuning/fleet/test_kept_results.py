from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import Server
from fleet_searches import until, untimed, worker
from fleets import RULES, trial_of

import autoquant
from autoquant.errors import RunError
from autoquant.files import write_text
from autoquant.tuning.events import Event, TrialEnded
from autoquant.tuning.fleet.kept_results import RESULTS, KeptResults, remove_of_dead, working_folder
from autoquant.tuning.fleet.messages import Job, Process
from autoquant.tuning.study.trial import sent_facts

FACTS = {"job": "0.1", "trial": {"number": 7}, "files": {}}


def job(number: int = 7, **rules: Any) -> Job:
    return Job("0.1", sent_facts(trial_of(number)), replace(RULES, **rules), 60.0)


def dead(parent: Path, act: Callable[[Path], object]) -> None:
    """Do something in the folder of a worker whose process is killed."""
    if (pid := os.fork()) == 0:
        try:
            with working_folder(parent) as folder:
                act(folder)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def keep(folder: Path, search: str = "a", *, with_files: bool = False, number: int = 7) -> None:
    (folder / f"{number:04d}").mkdir()
    write_text(folder / f"{number:04d}" / "config.json", "{}")
    write_text(folder / "baseline.npz", "large")
    KeptResults(folder, search, with_files=with_files).keep(job(number), 3, FACTS)


def test_the_result_of_a_worker_that_died_is_found(tmp_path: Path) -> None:
    dead(tmp_path, keep)
    with working_folder(tmp_path) as own:
        kept = KeptResults(own, "a")
        assert not kept.numbers
        with kept.those_of_the_dead():
            assert kept.numbers == (7,) and set(kept.workers) == {3}
            assert kept.workers[3].host == Process.own().host and kept.workers[3].pid != os.getpid()
            assert kept.find(replace(job(), name="4.2", closest=0.5)) == FACTS
            kept.drop(7)
            assert kept.find(job()) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [job(8), job(improves=False), replace(job(), seconds=None)])
def test_a_result_is_of_one_trial_and_its_rules(tmp_path: Path, other: Job) -> None:
    with working_folder(tmp_path) as own:
        keep(own)
        kept = KeptResults(own, "a")
        assert kept.find(other) is None


def test_results_of_other_searches_and_of_the_living_stay_where_they_are(tmp_path: Path) -> None:
    dead(tmp_path, lambda folder: keep(folder, "b"))
    with working_folder(tmp_path) as living, working_folder(tmp_path) as own:
        keep(living)
        with (kept := KeptResults(own, "a")).those_of_the_dead():
            assert kept.numbers == ()
        (left,) = (one for one in tmp_path.iterdir() if one not in (living, own))
        assert {path.name for path in left.iterdir()} == {".lock", "0007", "result-0007.json"}
    assert len(list(tmp_path.glob(f"*/{RESULTS}"))) == 2 == len(list(tmp_path.iterdir()))


def test_what_dead_workers_left_else_is_removed(tmp_path: Path) -> None:
    dead(tmp_path, lambda folder: write_text(folder / "baseline.npz", "large"))
    with working_folder(tmp_path) as own, KeptResults(own, "a").those_of_the_dead():
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_of_another_search_is_left_to_others(tmp_path: Path) -> None:
    dead(tmp_path, lambda folder: keep(folder, "b"))
    with (
        working_folder(tmp_path) as own,
        KeptResults(own, "a").those_of_the_dead(),
        working_folder(tmp_path) as other,
        (kept := KeptResults(other, "b")).those_of_the_dead(),
    ):
        assert kept.numbers == (7,)
        kept.drop(7)
    assert not list(tmp_path.iterdir())


def test_what_is_of_no_use_is_removed(tmp_path: Path) -> None:
    """One of other rules than are asked, and the older of two."""
    for number in (7, 7, 8):
        dead(tmp_path, partial(keep, number=number))
    with working_folder(tmp_path) as own, (kept := KeptResults(own, "a")).those_of_the_dead():
        assert kept.numbers == (7, 8) and len(list(tmp_path.glob(f"*/{RESULTS}"))) == 2
        assert kept.find(job(8, improves=False)) is None and 8 not in kept.numbers
        assert kept.find(job(7)) == FACTS
        kept.drop(7)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("results_too", [True, False])
def test_the_owner_removes_the_folders_of_the_dead_alone(tmp_path: Path, results_too: bool) -> None:
    """One that was given up, and lives after all, goes on in its own."""
    dead(tmp_path, keep)
    dead(tmp_path, lambda folder: write_text(folder / "config.json", "{}"))
    with working_folder(tmp_path) as living:
        for folder in list(tmp_path.iterdir()):
            remove_of_dead(folder, results_too=results_too)
        left = [folder for folder in tmp_path.iterdir() if folder != living]
        assert living.is_dir() and [bool(list(one.glob(RESULTS))) for one in left] == [True] * (not results_too)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"search": "a", "member": "x", "process": {}}'])
def test_a_file_that_is_no_result_is_none(tmp_path: Path, content: str) -> None:
    dead(tmp_path, lambda folder: write_text(folder / RESULTS.replace("*", "0007"), content))
    with working_folder(tmp_path) as own, (kept := KeptResults(own, "a")).those_of_the_dead():
        assert kept.numbers == ()


def test_a_disk_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RunError, match="is on a file system without locks"), working_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_another_machine_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(tmp_path, keep)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with working_folder(tmp_path) as own, (kept := KeptResults(own, "a")).those_of_the_dead():
        assert kept.numbers == ()


def test_files_that_the_owner_takes_come_along_once_the_trial_is_given_again(tmp_path: Path) -> None:
    dead(tmp_path, lambda folder: keep(folder, with_files=True))
    with working_folder(tmp_path) as own, (kept := KeptResults(own, "a", with_files=True)).those_of_the_dead():
        assert not (own / "0007").exists()
        assert kept.find(job()) == FACTS and (own / "0007" / "config.json").is_file()
        assert kept.find(job()) is None, "taken"


def test_without_its_files_a_result_is_none(tmp_path: Path) -> None:
    """The owner has taken them, and the worker died before it knew."""
    dead(tmp_path, lambda folder: KeptResults(folder, "a", with_files=True).keep(job(), 3, FACTS))
    with working_folder(tmp_path) as own, (kept := KeptResults(own, "a", with_files=True)).those_of_the_dead():
        assert kept.numbers == (7,) and kept.find(job()) is None


@pytest.mark.parametrize("by_another", [False, True])
def test_a_result_that_could_not_be_told_is_told_after_a_restart(
    options: dict[str, Any], server: Server, tmp_path: Path, by_another: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage is away when a trial has ended, and the worker is killed; it is dropped if another had the trial."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    study, hold, stack = uuid.uuid4().hex, tmp_path / "hold", ExitStack()
    processes: list[subprocess.Popen[str]] = []

    def start(disk: str) -> None:
        (tmp_path / disk).mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(tmp_path / disk))
        processes.append(worker("--storage", server.url, "--study", study))
        stack.callback(processes[-1].communicate)
        stack.callback(processes[-1].kill)

    def doing() -> list[str]:
        return [one.doing for one in autoquant.status(storage=server.url, study=study).workers]

    def cut_off() -> None:
        until(lambda: any("trial 2" in text for text in doing()))
        server.stop("immediate")
        hold.unlink()
        until(lambda: any((tmp_path / "one").glob(".worker-*/result-0002.json")))
        processes[0].kill()
        processes[0].wait()
        server.start()
        start("another" if by_another else "one")

    thread = threading.Thread(target=cut_off)

    def hear(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trials == 2:
            hold.touch()
            thread.start()
        if isinstance(event, TrialEnded) and event.trials == 4 and by_another:
            start("one")
            until(lambda: len(doing()) == 2)

    with stack:
        start("one")
        result = autoquant.search(**options, jobs=0, storage=server.url, study=study, listener=hear)
        thread.join()
        told = [process.communicate(timeout=60) for process in processes[1:]]
    assert untimed(result) == untimed(alone)
    assert [out for out, _ in told] == ["the search has ended: trial budget used\n"] * len(told)
    if by_another:
        assert "the result of trial 2 that was kept here is dropped: the search has ended without it" in told[1][1]
    else:
        assert "trial 2 was carried out here before: its result is told now" in told[0][1]
    assert not list(tmp_path.glob("*/.worker-*"))
