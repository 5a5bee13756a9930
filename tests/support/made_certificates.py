"""A certificate on 80 holdout samples, for the tests of what shows one."""

from __future__ import annotations

from typing import Any

from autoquant.evaluation.statistics.paired import EXACT
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict

DIGEST = "ab" * 32


def made_certificate(verdict: Verdict, *, max_drop: float, **facts: Any) -> Certificate:
    """That of a model which loses 0.125, 0.25 at most; `facts` are its other fields."""
    return Certificate(
        verdict=verdict,
        metric="top1",
        baseline=0.875,
        score=0.75,
        drop=0.125,
        upper_bound=0.25,
        max_drop=max_drop,
        confidence=0.95,
        samples=80,
        method=EXACT,
        origin=Origin("litert 2.3.0", "xnnpack 9", DIGEST, DIGEST, DIGEST),
        suspicious=False,
        **facts,
    )
