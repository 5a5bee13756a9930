"""Trials in a process of their own: it may die of one, and nothing else is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import autoquant
from autoquant.errors import UsageError, UserFunctionError
from autoquant.tuning.events import Event, TrialStarted
from autoquant.tuning.result import Ended
from autoquant.tuning.study.trial import State, Trial

METRIC = """
import os, signal
from pathlib import Path

HERE = Path(__file__).parent

def metric(outputs, labels):
    for name, act in (("die", die), ("raise", complain)):
        if (HERE / name).exists():
            act(HERE / name)
    return -abs(outputs - labels).max(axis=1)

def die(file):
    file.unlink()
    os.kill(os.getpid(), signal.SIGKILL)

def complain(file):
    raise ConnectionError("the database is away")
"""


@pytest.fixture
def options(on_lite: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(METRIC)
    return {**on_lite, "max_trials": 4}


def untimed(trial: Trial) -> Trial:
    return replace(trial, seconds={})


def test_the_search_outlives_what_carries_out_its_trials(options: dict[str, Any], tmp_path: Path) -> None:
    """It dies of one trial; another is interrupted by what the metric raises, and goes on later."""

    def hear(event: Event) -> None:
        if isinstance(event, TrialStarted) and event.number in (1, 3):
            (tmp_path / ("die" if event.number == 1 else "raise")).touch()

    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    with pytest.raises(UserFunctionError, match=r"the database is away.*`autoquant resume"):
        autoquant.search(**options, isolate=True, listener=hear)
    (tmp_path / "raise").unlink()
    result = autoquant.resume(options["run"])
    assert result.ended is Ended.TRIALS
    one = result.trials[1]
    assert (one.number, one.state) == (1, State.FAILED)
    assert one.failure == "its process was ended by SIGKILL, as where memory runs out"
    others = [place for place in range(4) if place != 1]
    assert [untimed(result.trials[place]) for place in others] == [untimed(alone.trials[place]) for place in others]


def test_what_is_in_memory_cannot_be_given_to_it(tensorflow: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="--isolate: carries trials out in another process, which cannot be given data"
    ):
        autoquant.search("model.tflite", ([[1.0]], [0]), isolate=True, run=tmp_path / "run")
