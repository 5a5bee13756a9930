"""Whole searches on real models. Every score is computed again here, in a plain TensorFlow session."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant
from autoquant.tuning.result import Verdict


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


def plain_top1(path: Path, case: Case, data: Path, output: str) -> float:
    """Top-1 of a saved graph: TensorFlow and NumPy, nothing of ours."""
    import tensorflow as tf

    stored = np.load(data / case.data / "evaluation.npz")
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    name = next(node.name for node in graph_def.node if node.op == "Placeholder")
    right = 0
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            for start in range(0, len(stored["x"]), 50):
                part = slice(start, start + 50)
                images = case.prepare(stored["x"][part].astype(np.float32))
                scores = session.run(f"{output}:0", {f"{name}:0": images})
                right += int((scores.argmax(axis=1) == stored["y"][part]).sum())
    return right / len(stored["x"])


@pytest.mark.parametrize("name", sorted(CASES))
def test_search(real_data: Path, tmp_path: Path, name: str):
    case = CASES[name]
    folder = real_data / case.data
    result = autoquant.search(
        real_data / case.model,
        folder / "evaluation.npz",
        calibration=folder / "calibration.npz",
        tolerance=case.tolerance,
        max_trials=case.max_trials,
        run=tmp_path / "run",
        **case.options,
    )
    assert result.baseline == pytest.approx(case.fp32, abs=1e-9)
    assert result.model is not None
    assert result.best is not None
    inspection = autoquant.inspect(real_data / case.model)
    layers = inspection.survey.by_name
    assert Counter(layer.op for layer in inspection.survey.layers) == case.layers
    quantized = Counter(layers[name].op for name in result.best.plan.int8)
    assert quantized == case.layers if case.whole else Counter() < quantized <= Counter(case.layers)
    output = inspection.model.graph.outputs[0]
    assert plain_top1(result.model, case, real_data, output) == pytest.approx(result.score, abs=1e-9)
    assert result.drop == pytest.approx(case.fp32 - result.score, abs=1e-9)
    allowed = case.fp32 * float(case.tolerance.rstrip("%")) / 100
    assert (result.verdict is Verdict.MET) == (case.fp32 - result.score <= allowed + 1e-9)
    if case.reachable:
        assert result.verdict is Verdict.MET


@pytest.mark.parametrize("name", ["resnet", "vww", "kws", "easy"])
def test_frozen_file_scores_as_published(real_data: Path, name: str):
    """The published figure, with this file's own scoring: what `plain_top1` is worth."""
    case = CASES[name]
    assert plain_top1(real_data / case.model, case, real_data, case.output) == pytest.approx(case.fp32, abs=1e-9)
