from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any, cast

import optuna
import psycopg
import pytest
from databases import Proxy, Server, mariadb, postgresql
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.exc import OperationalError, PendingRollbackError

from autoquant.errors import UsageError
from autoquant.tuning.study.databases import check_url, is_away, open_database
from autoquant.tuning.study.patience import cause
from autoquant.tuning.study.stores import database_store

Served = Callable[[], AbstractContextManager[Server]]
SERVERS = [pytest.param(postgresql, id="postgresql"), pytest.param(mariadb, id="mysql")]
SPACE = {f"p{number}": optuna.distributions.CategoricalDistribution((True, False)) for number in range(60)}


@pytest.mark.parametrize("url", ["postgresql+psycopg://aq@db/aq", "mysql+pymysql://aq@db/aq?read_default_file=/a.cnf"])
def test_databases_that_are_known_to_work(url: str) -> None:
    assert check_url(url).username == "aq"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is no URL"),
        ("runs/night", "is no URL"),
        ("sqlite:///a.db", "no storage that several processes can share"),
        ("redis://db", "no storage that several processes can share"),
        ("postgresql+psycopg://aq:secret@db/aq", "has a password"),
        ("postgresql+psycopg://aq@db/aq?password=secret", "has a password"),
    ],
)
def test_others_are_refused_and_no_password_is_shown(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_url(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("served", SERVERS)
def test_several_that_are_the_first_in_a_database_make_its_tables_once(served: Served) -> None:
    """An owner and its workers, started at the same moment."""
    opened: list[Any] = []

    def open_one(url: str) -> None:
        try:
            storage = open_database(url)
            opened.append(storage.get_all_studies())
            storage.close()
        except Exception as error:
            opened.append(error)

    with served() as server:
        threads = [threading.Thread(target=open_one, args=(server.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert opened == [[]] * 8


def test_what_optuna_asks_of_a_connection_that_broke_off_is_away_too() -> None:
    """It asks again in another way, which is another error; what was wrong at first is told."""
    error, wrapped = PendingRollbackError("please rollback() fully"), StorageInternalError("during the commit")
    error.__context__ = OperationalError("SELECT 1", None, Exception("server closed the connection"))
    wrapped.__cause__ = error
    assert is_away(wrapped) and cause(wrapped) == "server closed the connection"
    assert not is_away(StorageInternalError("of another kind"))


def test_a_trial_is_two_commits_and_few_statements_whatever_the_parameters() -> None:
    with postgresql() as server, closing(open_database(server.url)) as storage:
        store = database_store(storage, "night", ended={}, count=0)
        engine = cast(RDBStorage, cast(Any, storage)._storage._backend).engine
        counts = {"before_cursor_execute": 0, "commit": 0}
        for name in counts:
            event.listen(engine, name, lambda *_, name=name: counts.update({name: counts[name] + 1}))
        known: dict[str, Any] = {"params": dict.fromkeys(SPACE, True), "distributions": SPACE}
        template = create_trial(state=TrialState.RUNNING, **known, user_attrs={"why": "x", "phase": "start"})
        trial = storage.create_new_trial(store.study._study_id, template)
        with store.together():
            for name in "abcdefgh":
                storage.set_trial_user_attr(trial, name, 1)
            storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
        assert counts["commit"] == 2 and counts["before_cursor_execute"] < 40
        (found,) = store.study.trials
        assert found.params == dict.fromkeys(SPACE, True) and found.value == 0.5
        plain = optuna.load_study(study_name="night", storage=RDBStorage(server.url))
        assert [one.params for one in plain.trials] == [found.params]
        cast(RDBStorage, cast(Any, plain._storage)._backend).engine.dispose()


def test_a_study_that_is_lost_is_made_again_of_the_trials_that_ended() -> None:
    warned: list[str] = []
    ended = {1: create_trial(state=TrialState.COMPLETE, value=0.25)}
    with postgresql() as server, closing(open_database(server.url)) as storage:
        store = database_store(storage, "night", ended=ended, count=3, warn=warned.append)
        assert [one.state.name for one in store.study.trials] == ["FAIL", "COMPLETE", "FAIL"]
        again = database_store(storage, "night", ended=ended, count=3, warn=warned.append)
        assert len(again.study.trials) == 3
    assert warned == ["the study 'night' is not in the storage any more, and is made again of the 1 trials here"]


@pytest.mark.parametrize("served", SERVERS)
def test_a_connection_that_gives_no_answer_is_given_up(served: Served) -> None:
    """Though nobody has closed it; what was asked is asked again on another. Of MySQL's this is found before it is."""
    warned: list[str] = []
    with ExitStack() as stack:
        proxy = stack.enter_context(closing(Proxy(stack.enter_context(served()))))
        storage = stack.enter_context(closing(open_database(proxy.url, warned.append, stuck=1.0)))
        store = database_store(storage, "night", ended={}, count=0)
        proxy.stop_forwarding()
        store.study.set_user_attr("a", 1)
        assert store.study.user_attrs == {"a": 1}
    if served is postgresql:
        assert storage.away == 1 and "is away" in warned[0] and "is there again" in warned[-1]
    else:
        assert storage.away == 0 and not warned


def test_connections_that_the_server_ends_are_made_again() -> None:
    end = "select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid() and usename = 'aq'"
    with postgresql() as server, closing(open_database(server.url)) as storage:
        store = database_store(storage, "night", ended={}, count=0)
        with psycopg.connect(server.url.replace("+psycopg", "")) as another:
            another.execute(end)
        store.study.set_user_attr("a", 1)
        assert store.study.user_attrs == {"a": 1}
