"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

USER = "aq"


@dataclass(frozen=True)
class Server:
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
        user = "postgres" if os.getuid() == 0 else None
        command = [str(self.programs / program), *words]
        done = subprocess.run(command, user=user, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


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
def postgresql() -> Iterator[Server]:
    """A running server; skips where there is no PostgreSQL, but not with CI=true."""
    found = programs()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is missing: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        server = Server(found, folder, _free_port())
        server.run("initdb", "-D", str(folder / "cluster"), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
