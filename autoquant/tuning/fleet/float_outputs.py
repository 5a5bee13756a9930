"""The FP32 model's outputs on two machines: equal, nearly so, or of another model."""

from __future__ import annotations

import hashlib
from contextlib import closing

import numpy as np

from autoquant.errors import RunError
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.evaluation.statistics.tolerance import drop_from


def float_digest(scorer: SampleScorer) -> str:
    """SHA-256 of the FP32 outputs on the probe set, in hex: equal where two machines compute the same, bit by bit."""
    digest = hashlib.sha256()

    def add(at: slice, batch: Batch, outputs: Outputs) -> None:
        for name in sorted(outputs):
            digest.update(np.ascontiguousarray(outputs[name]).tobytes())

    with closing(scorer.open_float()) as runner:
        places, size = np.sort(scorer.probe_set), scorer.batch_size
        scorer.subset.measure(runner, places, batch_size=size, on_outputs=add)
    return digest.hexdigest()


def check_float(scorer: SampleScorer, max_drop: float) -> None:
    """Raise RunError where FP32 scores the probe set here as no other processor would make it.

    The score there is to be that of the baseline, but for `max_drop`.
    """
    subset, places = scorer.subset, np.sort(scorer.probe_set)
    with closing(scorer.open_float()) as runner:
        rows = subset.measure(runner, places, batch_size=scorer.batch_size)
    metric = subset.metric
    there, here = (float(metric.combine(found)) for found in (subset.score.rows[places], rows))
    if abs(drop_from(there, here, higher_is_better=metric.higher_is_better)) > max_drop:
        what = f"FP32 scores {here:.6g} here on {len(places)} samples, and {there:.6g} where the search was started"
        raise RunError("this machine", what, hint="it must not carry out trials: are its libraries in order?")
