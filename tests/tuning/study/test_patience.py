from __future__ import annotations

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
