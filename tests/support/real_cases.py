"""The real models that classify: where they are, how their data become inputs, and what they score."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import SearchResult

BATCH = 50


@dataclass(frozen=True)
class Case:
    """A real model: where it is, how its images become inputs, its published FP32 accuracy, and the tolerance.

    `layers` counts its operators that can be quantized, of which `in_float` at most stay in float; `decided` says
    that there are enough of its samples to tell a tolerance from luck.
    """

    model: str
    data: str
    output: str
    fp32: float
    tolerance: str
    layers: dict[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Any = np.asarray
    max_trials: int = 20
    decided: bool = True
    in_float: int = 0


TENTH_TRIALS, TENTH_IN_FLOAT = 40, 6
"""Of a search within a tenth of a percent, where chance decides which of equally good plans is within.

tests/benchmarks/last_tenth.py counts how often all layers are in INT8: with 60 trials 60 of 66 searches, the worst 8.
"""
KWS = {"Conv2D": 5, "DepthwiseConv2dNative": 4, "AvgPool": 1, "MatMul": 1}
CASES = {
    "resnet": Case(
        "cifar10/resnet8.pb", "cifar10", "Identity", 0.7604, "0.5%", {"Conv2D": 9, "AvgPool": 1, "MatMul": 1}
    ),
    "vww": Case(
        "vww/vww_96.pb",
        "vww",
        "Identity",
        0.8550,
        "1%",
        {"Conv2D": 14, "DepthwiseConv2dNative": 13, "AvgPool": 1, "MatMul": 1},
        {"scale": "1/255"},
        lambda x: x * np.float32(1 / 255),
        decided=False,  # 1 % of the holdout are three images and a half
    ),
    **{
        # Evaluation sample 252 is one of the calibration samples as well: these are 199.
        name: Case(f"kws/{file}", "kws", "Identity", 0.9075, "0.5%", KWS)
        for name, file in (("kws", "kws_ref_model.pb"), ("kws keras", "kws_ref_model.keras"))
    },
    **{
        name: Case(
            f"bed/{name}.pb",
            "bed",
            "logits",
            0.85275,
            tolerance,
            {"Conv2D": 7, "DepthwiseConv2dNative": 6, "MatMul": 1},
            {"preprocess": "tf"},
            lambda x: x / np.float32(127.5) - np.float32(1),
            in_float=in_float,
            max_trials=TENTH_TRIALS if tolerance == "0.1%" else 20,
        )
        for name, tolerance, in_float in (("easy", "0.1%", TENTH_IN_FLOAT), ("mid", "1%", 0), ("hard", "1%", 0))
    },
}

TIGHT = {
    f"{name} 0.1%": replace(CASES[name], tolerance="0.1%", in_float=TENTH_IN_FLOAT, max_trials=TENTH_TRIALS)
    for name in ("mid", "hard")
}
"""Networks whose channels were made unequal, within a tenth of a percent as well."""


def searched(case: Case, real_data: Path, run: Path, **options: Any) -> SearchResult:
    """A search as the case asks for it."""
    folder = real_data / case.data
    return autoquant.search(
        real_data / case.model,
        folder / "evaluation.npz",
        calibration=folder / "calibration.npz",
        tolerance=case.tolerance,
        max_trials=case.max_trials,
        run=run,
        **case.options,
        **options,
    )


def right(case: Case, real_data: Path, predict: Callable[[Any], Any]) -> Any:
    """Which evaluation samples, (samples,), have their highest score, (batch, classes) of a batch, at their label."""
    with np.load(real_data / case.data / "evaluation.npz") as stored:
        x, y = stored["x"], stored["y"]  # each look unpacks the whole array
    found = []
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        scores = predict(case.prepare(x[part].astype(np.float32)))
        found.append(scores.argmax(axis=1) == y[part])
    return np.concatenate(found)


@dataclass(frozen=True)
class SplitPositions:
    """Which evaluation samples a run was searched on, and which are the holdout, as positions, ascending."""

    search: Any
    holdout: Any

    @classmethod
    def of(cls, run: Path, samples: int) -> SplitPositions:
        """From what the folder of the run says; they are all of the data, and none is in both."""
        stored = np.load(run / "splits.npz")
        parts = cls(stored["search"], stored["holdout"])
        np.testing.assert_array_equal(
            np.sort(np.concatenate([parts.search, parts.holdout])), np.arange(samples), strict=False
        )
        return parts


def check_claim(case: Case, result: SearchResult, parts: SplitPositions, before: Any, after: Any) -> None:
    """The verdict, and the certificate where there is one, from the right answers of FP32 and INT8, (samples,)."""
    allowed = before.mean() * float(case.tolerance.rstrip("%")) / 100
    assert result.max_drop == pytest.approx(allowed, abs=1e-12)
    assert result.drop is not None
    assert result.drop <= allowed + 1e-9
    claim, kept = result.certificate, parts.holdout
    if claim is None:
        assert result.verdict is Verdict.MET
        assert len(kept) == 0
        return
    assert result.verdict is not Verdict.MISSED or not case.decided
    assert claim.samples == len(kept)
    assert (claim.baseline, claim.score) == (before[kept].mean(), after[kept].mean())
    assert (claim.losses, claim.gains) == ((before & ~after)[kept].sum(), (~before & after)[kept].sum())
    assert claim.drop == pytest.approx(before[kept].mean() - after[kept].mean(), abs=1e-12)
    assert claim.drop < claim.upper_bound
    expected = Verdict.CERTIFIED if claim.upper_bound <= allowed else Verdict.MET
    assert result.verdict is (expected if claim.drop <= allowed + 1e-9 else Verdict.MISSED)
    stored = json.loads((result.run / "best" / "certificate.json").read_text())
    assert (stored["verdict"], stored["drop"]) == (result.verdict.value, claim.drop)
    assert (stored["score"], stored["samples"]) == (claim.score, len(kept))
