"""PostgreSQL and MariaDB servers of the tests' own: each in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

USER = "aq"


class Server(Protocol):
    """A server that can be stopped and started; `url` is of its database, with the user and no password."""

    @property
    def port(self) -> int: ...

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self, mode: str = "fast") -> None:
        """Stop it; "immediate" is as if its machine died."""


@dataclass(frozen=True)
class PostgreSQL:
    """A server that can be stopped and started; `url` is of its database, with the user and no password."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        self._control("stop", "-w", "-m", mode)

    def made(self, name: str) -> str:
        """The URL of another database, which is made."""
        self._client("createdb", name)
        return self.url.replace("/postgres", f"/{name}")

    def copy(self, *, to: str) -> None:
        """Restore a dump of the database in another one."""
        dump = str(self.folder / "dump")
        self._client("pg_dump", "-Fc", "-f", dump, "postgres")
        self._client("pg_restore", "-d", to.rpartition("/")[2], dump)

    def _client(self, program: str, *words: str) -> None:
        self.run(program, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, *words)

    def _control(self, *words: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "cluster"), *words)

    def run(self, program: str, *words: str) -> None:
        """Run a program of PostgreSQL, which refuses to be run by root."""
        _run("postgres", str(self.programs / program), *words)


@dataclass
class MariaDB:
    """As Server has it."""

    program: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mysql+pymysql://{USER}@127.0.0.1:{self.port}/{USER}"

    def start(self) -> None:
        words = [f"--datadir={self.folder / 'data'}", f"--socket={self.folder / 'socket'}", f"--port={self.port}"]
        words += ["--bind-address=127.0.0.1", "--skip-name-resolve", f"--init-file={self.folder / 'init.sql'}"]
        words += [
            "--innodb-flush-log-at-trx-commit=2",  # with 0 a server that is killed has lost what it said was written
            f"--pid-file={self.folder / 'pid'}",
            "--skip-ssl",
            "--debug-no-sync",
        ]
        with (self.folder / "log").open("ab") as log:
            command = [str(self.program), "--no-defaults", *words]
            self.process = subprocess.Popen(command, user=_user("mysql"), cwd="/", stdout=log, stderr=log)
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self.process.poll() is None, (self.folder / "log").read_text(errors="replace")
            time.sleep(0.1)
        raise AssertionError("MariaDB does not answer")

    def stop(self, mode: str = "fast") -> None:
        assert self.process is not None
        (self.process.kill if mode == "immediate" else self.process.terminate)()
        self.process.wait()


class Proxy:
    """Stands before a server, and can stop forwarding without closing anything, as firewalls do."""

    def __init__(self, server: Server) -> None:
        self._server, self._silent = server, threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return self._server.url.replace(str(self._server.port), str(self._listening.getsockname()[1]))

    def stop_forwarding(self) -> None:
        """What goes through open connections is lost; new ones are forwarded."""
        self._silent.set()
        self._silent = threading.Event()

    def close(self) -> None:
        for one in (self._listening, *self._sockets):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server.port))
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(*pair, self._silent), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not silent.is_set():
                    other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def programs() -> Path | None:
    """Where PostgreSQL's programs are, if anywhere."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    return found[-1].parent if found[-1].is_file() else None


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A running server; skips where there is no PostgreSQL, but not with CI=true."""
    found = programs()
    if found is None:
        _miss("postgresql")
    with _folder("postgresql") as folder:
        server = PostgreSQL(found, folder, _free_port())
        server.run("initdb", "-D", str(folder / "cluster"), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@contextmanager
def mariadb() -> Iterator[MariaDB]:
    """A running server; skips where there is no MariaDB, but not with CI=true."""
    program, install = (shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("mariadbd", "mariadb-install-db"))
    if program is None or install is None:
        _miss("mariadb-server")
    with _folder("mysql") as folder:
        words = ["--no-defaults", f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal"]
        _run("mysql", install, *words, "--skip-test-db")
        grant = f"GRANT ALL ON *.* TO {USER}@'%'"
        init = (f"CREATE DATABASE IF NOT EXISTS {USER}", f"CREATE USER IF NOT EXISTS {USER}@'%'", grant)
        (folder / "init.sql").write_text("".join(f"{line};\n" for line in init))
        server = MariaDB(Path(program), folder, _free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


def _miss(package: str) -> NoReturn:
    """Skip, or fail with CI=true, as a package is not installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"a server is missing: apt-get install {package}")
    pytest.skip(f"{package} is not installed")


def _run(user: str, *command: str) -> None:
    pipe = subprocess.PIPE
    done = subprocess.run(command, user=_user(user), cwd="/", stdout=pipe, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def _user(name: str) -> str | None:
    """Whom a server runs as, which refuses to be run by root."""
    return name if os.getuid() == 0 else None


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A temporary folder for a server."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres" if name == "postgresql" else name).pw_uid, -1)
        yield Path(folder)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
