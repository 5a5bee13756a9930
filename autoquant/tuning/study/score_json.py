"""score.json: what is known of a trial, beside its config and record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.errors import InputError, RunError
from autoquant.files import write_text
from autoquant.formats.codec import decode, encode, json_text
from autoquant.formats.config_json import load_config
from autoquant.formats.strict import load_object
from autoquant.tuning.study.trial import Trial

SCORE = "score.json"
WAY_OUT = "put the file back, or remove the folder of that trial to have the others explained"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the trials of a run share: `baseline` and `max_drop` are in units of the metric.

    `max_drop` is the largest drop within tolerance, `objective_name` what the search minimizes.
    """

    metric: str
    baseline: float
    max_drop: float
    target: str
    engine: str
    objective_name: str


def write_score(folder: Path, trial: Trial, terms: Terms) -> None:
    """Write the score.json of a trial into its folder. Raises RunError."""
    write_text(folder / SCORE, json_text({"version": 1, **encode(terms), **trial.facts()}))


def add_to_score(model: Path, name: str, value: Any) -> None:
    """Write one more fact, found after the search, into the score.json beside a model. Raises RunError."""
    path = model.with_name(SCORE)
    write_text(path, json_text({**json.loads(path.read_text(encoding="utf-8")), name: value}))


def load_trial(folder: Path) -> tuple[Trial, Terms]:
    """A trial as its folder has it, in config.json and score.json. Raises RunError."""
    try:
        plan = load_config(folder / "config.json")
        found = load_object(folder / SCORE, RunError, hint=WAY_OUT)
        found.only("version", [1], 0)
        return decode(Trial, found, plan=plan), decode(Terms, found)
    except InputError as error:
        raise RunError(error.where, error.what, hint=WAY_OUT) from None
