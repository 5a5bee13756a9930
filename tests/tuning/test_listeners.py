"""What a program that calls a search hears and can do meanwhile, and that the process is left as it was."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import BudgetError
from autoquant.tuning import event_log, events
from autoquant.tuning.events import Event
from autoquant.tuning.result import Ended

OPTIONS: dict[str, Any] = {"tolerance": "5%", "max_trials": 3, "batch_size": 32}


def stopping(when: Callable[[Event], bool]) -> Callable[[Event], None]:
    def listener(event: Event) -> None:
        if when(event):
            raise autoquant.StopSearch

    return listener


def test_a_listener_stops_a_search_that_then_goes_on(hopeless: dict[str, Any], tmp_path: Path) -> None:
    whole = autoquant.search(**{**hopeless, "run": tmp_path / "whole"})
    third = stopping(lambda event: isinstance(event, events.TrialEnded) and event.trials == 3)
    result = autoquant.search(**hopeless, listener=third)
    assert result.ended is Ended.STOPPED and len(result.trials) == 3
    assert result.best is not None and result.model is not None and result.model.is_file()
    assert json.loads((result.run / "result.json").read_text())["ended"] == "stopped by its listener"
    assert (result.run / "report.html").is_file()
    resumed = autoquant.resume(result.run)
    assert resumed.ended is Ended.TRIALS
    assert [trial.plan for trial in resumed.trials] == [trial.plan for trial in whole.trials]
    assert resumed.best is not None and whole.best is not None and resumed.best.drop == whole.best.drop


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_a_listener_stops_a_search_at_any_event(tiny: Tiny, target: str, tmp_path: Path) -> None:
    """And goes on stopping it: what ends the search in good order is not ended by that."""
    heard: list[Event] = []
    autoquant.search(tiny.model, tiny.evaluation, **OPTIONS, target=target, run=tmp_path / "all", listener=heard.append)
    outcomes = set()
    for number in range(0, len(heard) - 1, 3):
        seen: list[Event] = []

        def from_there(event: Event, seen: list[Event] = seen, number: int = number) -> None:
            seen.append(event)
            if len(seen) > number:
                raise autoquant.StopSearch

        run = tmp_path / f"{number}"
        try:
            result = autoquant.search(
                tiny.model, tiny.evaluation, **OPTIONS, target=target, run=run, listener=from_there
            )
            assert result.ended is Ended.STOPPED
            outcomes.add("result")
        except BudgetError as error:
            assert "its listener stopped it before there was a result; " in str(error)
            assert ("autoquant resume" in str(error)) == run.exists()
            outcomes.add("resume" if run.exists() else "nothing")
        if run.exists():
            assert autoquant.resume(run).ended is Ended.NOTHING_BETTER
    assert outcomes == {"result", "resume", "nothing"}


def test_it_is_too_late_at_the_end(tiny: Tiny, tmp_path: Path) -> None:
    last = stopping(lambda event: isinstance(event, events.Finished))
    result = autoquant.search(tiny.model, tiny.evaluation, **OPTIONS, run=tmp_path / "run", listener=last)
    assert result.ended is Ended.NOTHING_BETTER


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


def test_without_a_listener_events_are_logged(tiny: Tiny, tmp_path: Path) -> None:
    logger, lines = logging.getLogger("autoquant"), Lines()
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        options: dict[str, Any] = {**OPTIONS, "calibration": tiny.evaluation, "allow_overlap": True}
        result = autoquant.search(tiny.model, tiny.evaluation, **options, run=tmp_path / "run")
        autoquant.inspect(tiny.model, calibration=tiny.calibration)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    infos = [text for name, text in lines.lines if name == "INFO"]
    assert infos[:2] == ["opening the model", "reading the data"]
    (trial,) = result.trials
    assert f"trial 0: done, 3 layers in INT8, drop {trial.drop:.6g}" in infos
    assert f"met, not certified: {result.ended}; {result.model}" in infos
    assert infos[-1] == "sensitivity of layers"
    assert [text for name, text in lines.lines if name == "WARNING"] == list(result.warnings)
    assert all(one != other for one, other in pairwise(infos))


def test_nothing_is_said_where_logging_is_not_configured(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # whatever other tests and libraries have configured
    event_log.log_event(events.Warned("quiet"))
    assert capfd.readouterr() == ("", "")


def state() -> dict[str, Any]:
    from absl import logging as absl_logging

    loggers = [logging.getLogger(name) for name in (None, "autoquant", "tensorflow", "absl", "optuna", "keras")]
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "warnings": list(warnings.filters),
        "numpy": np.geterr(),
        "numpy's generator": str(np.random.get_state()),
        "generator": random.getstate(),
        "loggers": [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers],
        "optuna": optuna.logging.get_verbosity(),
        "absl": absl_logging.get_verbosity(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "streams": (sys.stdout, sys.stderr),
        "folder": Path.cwd(),
    }


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
@pytest.mark.parametrize("verbosity", [optuna.logging.INFO, optuna.logging.ERROR])
def test_the_process_is_left_as_it_was(tiny: Tiny, target: str, verbosity: int, tmp_path: Path) -> None:
    own = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(verbosity)
    try:
        autoquant.inspect(tiny.model, target=target)  # so that all is imported
        before = state()
        options = {**OPTIONS, "target": target, "trial_timeout": "5m", "sampler": "tpe"}
        result = autoquant.search(tiny.model, tiny.evaluation, **options, run=tmp_path / "run")
        autoquant.export(result.run, tmp_path / "out")
        autoquant.quantize(
            tiny.model, tmp_path / "out" / "config.json", tiny.calibration, tmp_path / "2", target=target
        )
        assert state() == before
    finally:
        optuna.logging.set_verbosity(own)
