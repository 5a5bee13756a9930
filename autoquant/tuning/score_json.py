"""score.json: what came of a trial, beside its config and record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoquant.files import write_text
from autoquant.tuning.study.trial import Trial


def score_text(
    trial: Trial, *, metric: str, baseline: float, allowed: float, engine: str, target: str, objective: str
) -> str:
    """The text of score.json, keys sorted. Scores are in units of the metric; `tolerance` is absolute."""
    facts = {
        "version": 1,
        "trial": trial.number,
        "state": trial.state.value,
        "reason": trial.reason,
        "at_fault": trial.at_fault,
        "why": trial.why,
        "metric": metric,
        "engine": engine,
        "target": target,
        "baseline": baseline,
        "tolerance": allowed,
        "score": trial.score,
        "drop": trial.drop,
        "low": trial.low,
        "high": trial.high,
        "within": trial.within,
        "loss": trial.loss,
        "loss_samples": trial.loss_samples,
        "losses": list(trial.losses),
        "phase": trial.phase,
        "limit": trial.limit,
        "set_aside": trial.set_aside,
        "int8_layers": trial.int8_layers,
        "layers": trial.layers,
        "int8_share": trial.int8_share,
        "objective": {"name": objective, "value": trial.objective},
        "boundaries": trial.boundaries,
        "samples": trial.samples,
        "seconds": dict(trial.seconds),
    }
    return json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n"


def add_to_score(model: Path, name: str, value: Any) -> None:
    """Write one more fact, found after the search, into the score.json beside a model. Raises RunError."""
    path = model.with_name("score.json")
    facts = {**json.loads(path.read_text(encoding="utf-8")), name: value}
    write_text(path, json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n")
