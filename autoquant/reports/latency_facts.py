"""A latency as an object for JSON: in result.json, and what `benchmark --json` prints."""

from __future__ import annotations

from typing import Any

from autoquant.evaluation.latency.latency import Latency, Spread


def latency_facts(latency: Latency) -> dict[str, Any]:
    """The object. Times are seconds of one batch, `speed` is relative to the first model, the slowest operator first.

    Of an operator, `seconds` has one number for each model, null where it is not in it.
    """
    return {
        "threads": latency.threads,
        "batch_size": latency.batch_size,
        "rounds": latency.rounds,
        "models": [
            {
                "name": model.name,
                "seconds": _spread(model.seconds),
                "speed": _spread(model.speed),
                "operators_cover": covered,
            }
            for model, covered in zip(latency.models, latency.covered, strict=True)
        ],
        "statements": list(latency.statements),
        "noise": latency.noise,
        "operators": [
            {"name": one.name, "operator": one.kind, "seconds": list(one.seconds)} for one in latency.operators
        ],
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "lower_quartile": spread.low, "upper_quartile": spread.high}
