"""Databases that several machines reach: PostgreSQL or MySQL, by a URL of SQLAlchemy in which there is no password."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, get_storage
from optuna.storages._rdb.models import TrialParamModel
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from autoquant.errors import StorageError, UsageError
from autoquant.messages import reason
from autoquant.quiet import no_progress
from autoquant.tuning.study.patience import Patience, cause
from autoquant.tuning.study.patient_storage import PatientStorage

DRIVERS: Mapping[str, str] = MappingProxyType({"postgresql": "psycopg", "mysql": "pymysql"})
"""The databases that are known to work, each with the driver that the extra of its name installs."""
EXAMPLE = "postgresql+psycopg://user@host/database"
CONNECT_SECONDS = 10


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
        files = "PostgreSQL takes PGPASSWORD or ~/.pgpass, MySQL ?read_default_file= with a file like ~/.my.cnf"
        hint = f"leave it out: {files}"
        raise UsageError(
            f"--storage {where}", "has a password, which lists of processes and files would show", hint=hint
        )
    return url


class Database(RDBStorage):
    """Optuna's storage in a database, which stores the parameters of a new trial in one statement.

    Optuna asks for the trial, and for the same parameter of another one, before each of them: three statements a
    parameter. All trials of a study of ours have the same space.
    """

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


def open_database(text: str, warn: Callable[[str], None] = no_progress) -> PatientStorage:
    """Connect to a database. Raises UsageError where its driver is missing, StorageError where it is not there."""
    url = check_url(text)
    driver = DRIVERS[url.get_backend_name()]
    try:
        database = Database(text, {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_SECONDS}})
    except (ImportError, NoSuchModuleError):
        hint = f"pip install 'autoquant[{url.get_backend_name()}]', and write {url.get_backend_name()}+{driver}://..."
        raise UsageError(f"--storage {text}", "has no driver here", hint=hint) from None
    except RuntimeError as error:  # which says how to upgrade its tables
        raise StorageError(text, reason(error), hint="or give another database") from None
    except (DBAPIError, StorageInternalError) as error:
        hint = "see that the server runs, and that user, database and password (PGPASSWORD, ~/.pgpass) are right"
        raise StorageError(text, f"cannot be opened ({cause(error)})", hint=hint) from None
    return PatientStorage(
        get_storage(database),
        Patience(text, warn),
        is_away,
        lambda: _one_transaction(database),
        database.engine.dispose,
    )


def is_away(error: Exception) -> bool:
    """Whether an error says that the database could not be reached, or broke off."""
    found = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(found, DBAPIError) and found.connection_invalidated:
        return True
    return isinstance(found, OperationalError | InterfaceError)


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
