"""Workers that are processes of this machine, for `--jobs`; they end with the search."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import autoquant
from autoquant.errors import RunError
from autoquant.tuning.fleet.messages import Process
from autoquant.tuning.fleet.owner import Fleet

LOG = "workers.log"
"""The file of a run that holds what its own workers write."""
TRUSTED = "--trust-model"
"""Given to the processes where the search was told so: run.toml never says it."""
LEAVING = 5.0
"""Seconds in which workers of this machine are to leave at the end of a search."""
PLACE = "--place"
"""Which of how many processes one is, that they share the processors."""


class Children:
    """Starts so many workers of a run; one that dies is started again, and its trial is given to another at once."""

    def __init__(self, run: Path, jobs: int, *, trust_model: bool = False) -> None:
        self._run = run
        self._options = [TRUSTED] if trust_model else []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._log: IO[bytes] | None = None
        self._jobs = jobs
        self._failures = 0

    def start(self) -> None:
        """Start those that are not there. Raises RunError where the log cannot be written."""
        try:
            self._log = self._log or (self._run / LOG).open("ab")
        except OSError as error:
            raise RunError(str(self._run / LOG), f"cannot be written ({error.strerror})") from None
        package = str(Path(autoquant.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        while len(self._processes) < self._jobs:
            place = min(set(range(self._jobs)) - self._processes.keys())
            words = [str(self._run), PLACE, f"{place}/{self._jobs}", *self._options]
            process = subprocess.Popen(
                [sys.executable, "-m", "autoquant.tuning.fleet.child", *words],
                stdin=subprocess.PIPE,  # whose end tells it that the search has ended, however that was
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is not for it
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": paths},
            )
            self._processes[place] = process

    def check(self, fleet: Fleet) -> None:
        """Start those again that died. Raises RunError where they keep doing so before they carry anything out."""
        dead = [(place, process) for place, process in self._processes.items() if process.poll() is not None]
        for place, process in dead:
            del self._processes[place]
            _close(process)
            host = Process.own().host
            known = [one for one in fleet.workers if (one.host, one.facts.process.pid) == (host, process.pid)]
            for worker in known:
                fleet.bury(worker)
            self._failures = 0 if known else self._failures + 1
            if self._failures > self._jobs:
                what = (
                    f"a worker ended with exit code {process.returncode} before its first trial: {self._last_words()}"
                )
                raise RunError(str(self._run / LOG), what, hint="resume with --jobs 1, which says more")
        if dead:
            self.start()

    def close(self) -> None:
        """End them: they leave in good order, unless that takes too long."""
        for process in self._processes.values():
            process.terminate()
        until = time.monotonic() + LEAVING
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0.0))
            process.kill()
            process.wait()
            _close(process)
        self._processes.clear()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _last_words(self) -> str:
        """The last line of the log."""
        lines = (self._run / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
