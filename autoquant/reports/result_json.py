"""result.json, and what `--json` prints: one object about the whole search."""

from __future__ import annotations

import math
from typing import Any

from autoquant.formats.codec import json_text
from autoquant.tuning.result import SearchResult


def result_facts(result: SearchResult) -> dict[str, Any]:
    """The object. Scores, `drop` and `max_drop` are in units of the metric; `int8_share` is a share of `share_of`.

    `objective` is what was minimized, 1.0 for the model all in float; `qdq_ops` counts Q/DQ operators between
    that and INT8.
    """
    best = result.best
    return {
        "version": 1,
        "verdict": result.verdict.value,
        "metric": result.metric,
        "baseline": result.baseline,
        "score": result.score,
        "score_tensorflow": result.score_tensorflow,
        "drop": result.drop,
        "max_drop": result.max_drop,
        "int8_layers": best.int8_layers if best else 0,
        "layers": result.layers,
        "int8_share": best.int8_share if best else 0.0,
        "objective": {"name": result.objective, "value": best.objective if best else None},
        "qdq_ops": best.qdq_ops if best else None,
        "latency": result.latency.facts() if result.latency else None,
        "verification": result.verification.facts() if result.verification else None,
        "certificate": result.certificate.facts() if result.certificate else None,
        "uncertified": result.uncertified,
        "search_samples": result.search_samples,
        "trials": len(result.trials),
        "best_trial": best.number if best else None,
        "evaluated_samples": result.evaluated_samples,
        "seconds": result.seconds,
        "ended": result.ended.value,
        "share_of": result.unit,
        "warnings": list(result.warnings),
        "model": str(result.model) if result.model else None,
        "run": str(result.run),
    }


def result_text(result: SearchResult) -> str:
    """The text of result.json: the object, with every trial."""
    facts = {**result_facts(result), "all_trials": [trial.facts() for trial in result.trials]}
    facts["costly_layers"] = [
        {"layer": name, "relative_error": error if math.isfinite(error) else None} for name, error in result.costly
    ]
    return json_text(facts)
