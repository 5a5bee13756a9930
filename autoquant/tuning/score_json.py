"""score.json: what came of a trial, beside its config and record."""

from __future__ import annotations

import json

from autoquant.tuning.result import Trial


def score_text(trial: Trial, *, metric: str, baseline: float, allowed: float, engine: str, target: str) -> str:
    """The text of score.json, keys sorted. Scores are in units of the metric; `tolerance` is absolute."""
    facts = {
        "version": 1,
        "trial": trial.number,
        "state": trial.state.value,
        "reason": trial.reason,
        "why": trial.why,
        "metric": metric,
        "engine": engine,
        "target": target,
        "baseline": baseline,
        "tolerance": allowed,
        "score": trial.score,
        "drop": trial.drop,
        "int8_layers": trial.int8_layers,
        "layers": trial.layers,
        "int8_share": trial.int8_share,
        "samples": trial.samples,
        "seconds": dict(trial.seconds),
    }
    return json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n"
