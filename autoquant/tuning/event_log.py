"""The events of a search as lines of Python's logging, for programs that give no listener of their own."""

from __future__ import annotations

import logging

from autoquant.tuning.events import (
    BaselineScored,
    Event,
    Finished,
    Opened,
    Progress,
    Resumed,
    TrialEnded,
    Warned,
    WorkerEnded,
)

LOGGER = logging.getLogger("autoquant")
LOGGER.addHandler(logging.NullHandler())  # so that warnings are silent where a program configures no logging


class EventLog:
    """Logs events: warnings as such; the beginning of a phase, scores and trials as INFO."""

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, event: Event) -> None:
        """Log an event; of a phase once, however often it tells of its beginning."""
        if isinstance(event, Warned):
            LOGGER.warning("%s", event.text)
            return
        text = _text(event)
        if text and text != self._phase:
            LOGGER.info("%s", text)
        self._phase = text or self._phase


_LOG = EventLog()


def log_event(event: Event) -> None:
    """Log an event: the listener where none is given."""
    _LOG(event)


def _text(event: Event) -> str:
    match event:
        case Progress(what, 0):
            return what
        case Opened(run, model, layers, _, samples):
            return f"run {run}: {model}, {layers} layers, {samples} samples"
        case BaselineScored(metric, score, max_drop):
            return f"FP32: {metric} {score:.6g}, a drop of {max_drop:.6g} is within tolerance"
        case Resumed(trials):
            return f"{len(trials)} trials ended before"
        case TrialEnded(trial) | WorkerEnded(trial):
            drop = "no score" if trial.drop is None else f"drop {trial.drop:.6g}"
            return f"trial {trial.number}: {trial.state.value}, {trial.int8_layers} layers in INT8, {drop}"
        case Finished(result):
            return f"{result.verdict.value}: {result.ended.value}; {result.model or 'no model'}"
    return ""
