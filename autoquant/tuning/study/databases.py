"""Databases that several machines reach: PostgreSQL or MySQL, by a URL of SQLAlchemy in which there is no password."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, get_storage
from optuna.storages._rdb.models import TrialParamModel
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.orm import Session

from autoquant.errors import StorageError, UsageError
from autoquant.messages import reason
from autoquant.quiet import no_progress
from autoquant.tuning.study.patience import Patience, cause
from autoquant.tuning.study.patient_storage import PatientStorage

DRIVERS: Mapping[str, str] = MappingProxyType({"postgresql": "psycopg", "mysql": "pymysql"})
"""The databases that are known to work, each with the driver that the extra of its name installs."""
PASSWORDS: Mapping[str, str] = MappingProxyType(
    {"postgresql": "PGPASSWORD or ~/.pgpass", "mysql": "?read_default_file= with a file like ~/.my.cnf"}
)
"""Where the password of a database is, which no URL has."""
EXAMPLE = "postgresql+psycopg://user@host/database"
CONNECT_SECONDS = 10
MAKING, MAKING_SECONDS = 4, 0.5
"""So often is it tried to make the tables, so many seconds apart, while others make them."""
STUCK_SECONDS = 60.0
"""Seconds after which a connection that gives no answer is given up."""


def check_url(text: str) -> URL:
    """The URL of a database that workers can share. Raises UsageError, in which no password is."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise UsageError("--storage", "is no URL of a database", hint=f"for example {EXAMPLE}") from None
    where = url.difference_update_query(["password"]).render_as_string(hide_password=True)
    if url.get_backend_name() not in DRIVERS:
        what = "is no storage that several processes can share"
        raise UsageError(f"--storage {where}", what, hint=f"give one of PostgreSQL or MySQL, for example {EXAMPLE}")
    if url.password is not None or "password" in url.query:
        hint = f"leave it out: PostgreSQL takes {PASSWORDS['postgresql']}, MySQL {PASSWORDS['mysql']}"
        raise UsageError(
            f"--storage {where}", "has a password, which lists of processes and files would show", hint=hint
        )
    return url


class Database(RDBStorage):
    """Optuna's storage in a database, which stores the parameters of a new trial in one statement.

    Optuna asks for the trial, and for the same parameter of another one, before each of them: three statements a
    parameter. All trials of a study of ours have the same space.
    """

    def __init__(self, url: str, engine: dict[str, Any]) -> None:
        try:
            super().__init__(url, engine)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise

    def _set_trial_param_without_commit(
        self,
        session: Session,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,
    ) -> None:
        known = {"trial_id": trial_id, "param_name": param_name, "param_value": param_value_internal}
        session.add(TrialParamModel(**known, distribution_json=distribution_to_json(distribution)))


class Watchdog:
    """Cuts connections that answer nothing for so many seconds, though nobody has closed them, as behind a firewall.

    What waits for the answer gets an error then, and asks again on another connection. No transaction of ours is long.
    """

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._seconds = seconds
        self._used: dict[int, tuple[Any, float]] = {}
        self._closed = threading.Event()
        event.listen(engine, "checkout", self._take)
        event.listen(engine, "checkin", self._give_back)
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _take(self, connection: Any, *_: object) -> None:
        self._used[id(connection)] = connection, time.monotonic()

    def _give_back(self, connection: Any, *_: object) -> None:
        self._used.pop(id(connection), None)

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 4):
            for connection, since in list(self._used.values()):
                if time.monotonic() - since > self._seconds and hasattr(connection, "fileno"):
                    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as own:
                        own.shutdown(socket.SHUT_RDWR)


def open_database(
    text: str, warn: Callable[[str], None] = no_progress, *, stuck: float = STUCK_SECONDS
) -> PatientStorage:
    """Connect to a database. Raises UsageError where its driver is missing, StorageError where it is not there.

    A connection that gives no answer for `stuck` seconds is given up.
    """
    url = check_url(text)
    driver = DRIVERS[url.get_backend_name()]
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if driver == "pymysql":
        arguments |= {"read_timeout": stuck, "write_timeout": stuck}
    try:
        database = _opened(text, arguments)
    except (ImportError, NoSuchModuleError):
        hint = f"pip install 'autoquant[{url.get_backend_name()}]', and write {url.get_backend_name()}+{driver}://..."
        raise UsageError(f"--storage {text}", "has no driver here", hint=hint) from None
    except RuntimeError as error:  # which says how to upgrade its tables
        raise StorageError(text, reason(error), hint="or give another database") from None
    except (DBAPIError, StorageInternalError) as error:
        password = PASSWORDS[url.get_backend_name()]
        hint = f"see that the server runs, and that user, database and password ({password}) are right"
        raise StorageError(text, f"cannot be opened ({cause(error)})", hint=hint) from None
    watchdog = Watchdog(database.engine, stuck)

    def close() -> None:
        watchdog.close()
        database.engine.dispose()

    logging.getLogger("optuna.storages._rdb.storage").addFilter(_is_news)
    storage, patience = get_storage(database), Patience(text, warn)
    return PatientStorage(storage, patience, is_away, lambda: _one_transaction(database), close)


def _opened(text: str, arguments: dict[str, Any]) -> Database:
    """Open a database, with Optuna's tables: of several processes that make these at once, all but one have errors."""
    for attempt in range(MAKING):
        try:
            return Database(text, {"connect_args": arguments})
        except (DBAPIError, StorageInternalError) as error:
            found = error.__cause__ if isinstance(error, StorageInternalError) else error
            is_made = isinstance(found, IntegrityError | ProgrammingError) or "already exists" in str(found)
            if not is_made or attempt == MAKING - 1:
                raise
            time.sleep(MAKING_SECONDS)
    raise AssertionError


def is_away(error: Exception) -> bool:
    """Whether an error says that the database could not be reached, or broke off."""
    found = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(found, DBAPIError) and found.connection_invalidated:
        return True
    # Optuna asks once more on a connection that has broken off, which is another error.
    return isinstance(found, OperationalError | InterfaceError | PendingRollbackError)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether what Optuna logs is not what is told in a line of ours: that the database is away."""
    return not record.getMessage().startswith("Caught an error from sqlalchemy")


class _Open(Session):
    """A session that is committed and closed later."""

    def commit(self) -> None:
        self.flush()

    def close(self) -> None:
        """Not yet."""


@contextmanager
def _one_transaction(database: RDBStorage) -> Iterator[None]:
    """Let all that this thread writes within be one transaction."""
    own, session, thread = database.scoped_session, _Open(bind=database.engine), threading.get_ident()

    def chosen() -> Session:
        return session if threading.get_ident() == thread else own()

    replaced: Any = chosen  # all that a storage wants of it is to be called
    database.scoped_session = replaced
    try:
        yield
        Session.commit(session)
    finally:
        database.scoped_session = own
        Session.close(session)
