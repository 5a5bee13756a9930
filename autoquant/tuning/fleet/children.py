"""Workers that are processes of this machine, for `--jobs`; they end with the search."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from autoquant.errors import RunError
from autoquant.tuning.fleet.messages import Process
from autoquant.tuning.fleet.owner import Fleet
from autoquant.tuning.own_process import command, environment

LOG = "workers.log"
"""The file of a run that holds what its own workers write."""
LEAVING = 5.0
"""Seconds in which workers of this machine are to leave at the end of a search."""
PLACE = "--place"
"""Which of how many processes one is, that they share the processors."""


class Children:
    """Starts so many workers of a run; one that dies is started again, and its trial is given to another at once."""

    def __init__(self, run: Path, jobs: int, *, trust_model: bool = False) -> None:
        self._run = run
        self._trust_model = trust_model
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
        while len(self._processes) < self._jobs:
            place = min(set(range(self._jobs)) - self._processes.keys())
            words = [PLACE, f"{place}/{self._jobs}"]
            process = subprocess.Popen(
                command("autoquant.tuning.fleet.child", self._run, *words, trust_model=self._trust_model),
                stdin=subprocess.PIPE,  # whose end tells it that the search has ended, however that was
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is not for it
                env=environment(),
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
