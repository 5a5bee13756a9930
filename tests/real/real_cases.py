"""The real models that classify: where they are, how their data become inputs, and what they score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import autoquant
from autoquant.tuning.result import SearchResult

BATCH = 50


@dataclass(frozen=True)
class Case:
    """A real model: where it is, how its images become inputs, its published FP32 accuracy, and the tolerance.

    `layers` counts its operators that can be quantized, `whole` says that all of them are within the tolerance.
    """

    model: str
    data: str
    output: str
    fp32: float
    tolerance: str
    layers: dict[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Any = np.asarray
    reachable: bool = True
    whole: bool = True
    max_trials: int = 12


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
    ),
    "kws": Case("kws/kws_ref_model.pb", "kws", "Identity", 0.9075, "0.5%", KWS),
    "kws keras": Case("kws/kws_ref_model.keras", "kws", "Identity", 0.9075, "0.5%", KWS),
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
            reachable,
            whole=False,
        )
        for name, tolerance, reachable in (("easy", "0.1%", True), ("mid", "1%", False), ("hard", "1%", False))
    },
}


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


def top1(case: Case, real_data: Path, predict: Callable[[Any], Any]) -> float:
    """The share of samples whose highest score, (batch, classes) of a batch of inputs, is that of their label."""
    stored = np.load(real_data / case.data / "evaluation.npz")
    right = 0
    for start in range(0, len(stored["x"]), BATCH):
        part = slice(start, start + BATCH)
        scores = predict(case.prepare(stored["x"][part].astype(np.float32)))
        right += int((scores.argmax(axis=1) == stored["y"][part]).sum())
    return right / len(stored["x"])
