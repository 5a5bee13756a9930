from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from databases import MariaDB, PostgreSQL, Server, mariadb, postgresql
from fleet_searches import METRIC
from optuna.storages import InMemoryStorage

from autoquant.tuning.fleet.board import Board
from autoquant.tuning.fleet.storages import Meeting, meet_in_database, meet_in_folder
from autoquant.tuning.study.run_folder import RunFolder


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as found:
        yield found


@pytest.fixture(scope="session")
def mysql() -> Iterator[MariaDB]:
    with mariadb() as found:
        yield found


@pytest.fixture(params=["server", "mysql"])
def either(request: pytest.FixtureRequest) -> Server:
    """A server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["journal", "server", "mysql"])
def meet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Meeting]]:
    """Opens the same meeting again and again, as several processes do."""
    name, opened = uuid.uuid4().hex, ExitStack()

    def open_one() -> Meeting:
        if request.param == "journal":
            return meet_in_folder(RunFolder(tmp_path))
        url = request.getfixturevalue(request.param).url
        return opened.enter_context(closing(meet_in_database(url, name)))

    with opened:
        yield open_one


@pytest.fixture
def board() -> Board:
    """A board in memory."""
    return Board(InMemoryStorage(), "study")


@pytest.fixture
def options(on_lite: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(METRIC)
    return {**on_lite, "max_trials": 6}
