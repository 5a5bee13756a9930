"""Searches with real workers: processes of this machine, whose metric can be held up or die, by files beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import autoquant
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import Trial

METRIC = """
import os, signal, time
from pathlib import Path

HERE = Path(__file__).parent

def metric(outputs, labels):
    while (HERE / "hold").exists():
        time.sleep(0.02)
    if (HERE / "die").exists() and __import__("sys").argv[0].endswith("child.py"):
        (HERE / "die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return -abs(outputs - labels).max(axis=1)
"""


def untimed(result: SearchResult) -> list[Trial]:
    """All that is known of the trials but times, machines, and how often the best was scored."""
    return [replace(trial, seconds={}, samples=60, host=None) for trial in result.trials]


def worker(*words: str) -> subprocess.Popen[str]:
    """`autoquant worker` in a process of its own."""
    command = [sys.executable, "-m", "autoquant", "worker", *words, "--plain"]
    package = str(Path(autoquant.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


@contextmanager
def workers(count: int, *words: str) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [worker(*words) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def until(happened: Callable[[], bool]) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")
