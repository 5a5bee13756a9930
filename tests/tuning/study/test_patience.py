from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from autoquant.errors import StorageError
from autoquant.tuning.study.patience import FIRST, LONGEST, Patience, cause


class Server:
    """Is away for so many calls; sleeping moves its clock."""

    def __init__(self, away: int) -> None:
        self.away, self.now, self.warnings, self.slept = away, 0.0, list[str](), list[float]()

    def patience(self, limit: float = 600.0) -> Patience:
        return Patience("db:5432", self.warnings.append, limit=limit, clock=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def ask(self, failures: int) -> int:
        if failures < self.away:
            raise ConnectionError("connection refused")
        return failures


def is_lost(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def test_what_is_there_is_not_waited_for() -> None:
    server = Server(0)
    assert server.patience().call(server.ask, is_lost) == 0
    assert (server.slept, server.warnings) == ([], [])


def test_what_is_away_is_asked_again_more_and_more_seldom() -> None:
    server = Server(8)
    patience = server.patience()
    assert patience.call(server.ask, is_lost) == 8 == patience.away
    assert server.slept == [FIRST, 1.0, 2.0, 4.0, 8.0, LONGEST, LONGEST, LONGEST]
    assert server.warnings == [
        "db:5432 is away (connection refused): waiting for it, 10m00s long",
        "db:5432 is there again after 46s",
    ]


def test_what_is_away_for_too_long_is_an_error() -> None:
    server = Server(10**6)
    with pytest.raises(StorageError, match=r"db:5432: was away for 30s \(connection refused\)") as error:
        server.patience(30.0).call(server.ask, is_lost)
    assert error.value.exit_code == 75 and sum(server.slept) == 30.0


def test_who_has_waited_for_long_enough_does_not_wait_for_each_of_its_last_words() -> None:
    """Until it is there again; another thread has a patience of its own."""
    server = Server(10**6)
    patience = server.patience(30.0)
    for gone in ("30s", "30s"):
        with pytest.raises(StorageError, match=f"was away for {gone}"):
            patience.call(server.ask, is_lost)
    assert sum(server.slept) == 30.0 and len(server.warnings) == 1
    errors: list[BaseException] = []
    thread = threading.Thread(target=lambda: errors.append(_error(lambda: patience.call(server.ask, is_lost))))
    thread.start()
    thread.join()
    assert isinstance(errors[0], StorageError) and sum(server.slept) == 60.0
    assert len(server.warnings) == 1, "one thread says so for all"
    assert patience.call(lambda failures: 7, is_lost) == 7
    assert server.warnings[1:] == ["db:5432 is there again after 1m00s"]
    server.away = 2
    assert patience.call(server.ask, is_lost) == 2


def test_who_was_interrupted_while_it_waited_does_not_wait_again() -> None:
    server = Server(10**6)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    patience = Patience("db:5432", server.warnings.append, clock=lambda: server.now, sleep=interrupted)
    assert isinstance(_error(lambda: patience.call(server.ask, is_lost)), KeyboardInterrupt)
    assert isinstance(_error(lambda: patience.call(server.ask, is_lost)), StorageError)
    assert patience.call(lambda failures: 7, is_lost) == 7
    assert isinstance(_error(lambda: patience.call(server.ask, is_lost)), KeyboardInterrupt)


def _error(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("there was no error")


def test_other_errors_are_nothing_to_wait_for() -> None:
    def fails(failures: int) -> None:
        raise KeyError("no such study")

    with pytest.raises(KeyError):
        Server(0).patience().call(fails, is_lost)


def test_the_first_cause_is_told() -> None:
    try:
        try:
            raise OSError("the disk is gone\nand more")
        except OSError as error:
            raise RuntimeError("a transaction failed") from error
    except RuntimeError as error:
        assert cause(error) == "the disk is gone"
