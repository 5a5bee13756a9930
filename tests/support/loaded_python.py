"""Python processes that begin with TensorFlow loaded: forked off one that has loaded it and run nothing.

To load it takes as long as most tests do. Each process has its own words, folder, environment and streams, as if it had
been started with them: what is to be shown of start itself is not to be shown so.
"""

from __future__ import annotations

import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

LONGEST = 1 << 20
"""Bytes of a request."""


class Forked:
    """A process; as far as tests want it, what subprocess.Popen is."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> None:
        self._socket = asked(str(_server()[0]), words, environment, streams)
        self._reply = self._socket.makefile("r")
        self.args, self.pid = list(words), int(self._reply.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; that of a signal is negative, and None while it runs."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                if selector.select(0):
                    self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._socket.settimeout(timeout)
            try:
                self.returncode = int(self._reply.readline())
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._socket.close()
        return self.returncode

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def client(path: Path, *words: str) -> None:
    """Write a program that runs Python on words and its own, from whatever folder it is started."""
    call = [sys.executable, "-SE", __file__, "--ask", str(_server()[0]), *words]
    path.write_text(f'#!/bin/sh\nexec {" ".join(call)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


@cache
def _server() -> tuple[Path, subprocess.Popen[bytes]]:
    """The socket of the process that all are forked off, and that process: it ends when nobody holds its stdin."""
    path = Path(tempfile.mkdtemp()) / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    return path, server


def asked(path: str, words: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> socket.socket:
    """Where a server tells of a new process: its number, and later its exit code, a line each."""
    found = socket.socket(socket.AF_UNIX)
    found.connect(path)
    request = {"words": list(words), "folder": str(Path.cwd()), "environment": dict(environment)}
    socket.send_fds(found, [json.dumps(request).encode()], list(streams))
    return found


def ask(path: str, words: Sequence[str]) -> int:
    """Run Python on words as if it were this process; the exit code."""
    with asked(path, words, os.environ, [0, 1, 2]).makefile("r") as reply:
        reply.readline()
        return int(reply.readline()) % 256


def serve(path: str) -> Mapping[str, Any]:
    """Fork a process for each request until nobody can ask any more. In such a process: what was asked for."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asking: dict[int, socket.socket] = {}
    print("ready", flush=True)
    with selectors.DefaultSelector() as selector:
        for source in (listening, woken, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    shutil.rmtree(Path(path).parent)
                    os._exit(0)
                elif key.fileobj is woken:
                    woken.recv(4096)
                    _tell_of_ended(asking)
                else:
                    one, _ = listening.accept()
                    request, streams, _, _ = socket.recv_fds(one, LONGEST, 3)
                    pid = os.fork()
                    if pid == 0:
                        for number, stream in enumerate(streams):
                            os.dup2(stream, number)
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for own in (listening, woken, wake, one, *asking.values()):
                            own.close()
                        os.closerange(3, max(streams) + 1)
                        found: Mapping[str, Any] = json.loads(request)
                        return found
                    for stream in streams:
                        os.close(stream)
                    asking[pid] = one
                    one.sendall(f"{pid}\n".encode())


def _tell_of_ended(asking: dict[int, socket.socket]) -> None:
    while asking:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with asking.pop(pid) as one:
            one.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(request: Mapping[str, Any]) -> None:
    """Be the process that was asked for."""
    words = request["words"]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # which was chosen in another environment
    added = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [str(Path.cwd()) if words[0] == "-m" else str(Path(words[0]).parent), *added]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--ask":
        sys.exit(ask(sys.argv[2], sys.argv[3:]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401

    import autoquant.cli.search
    import autoquant.cli.worker
    import autoquant.targets.litert  # noqa: F401

    become(serve(sys.argv[2]))
