"""Whole searches on real models. Every best model's score is computed again here, in a plain TensorFlow session."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from real_cases import CASES, Case, searched, top1

import autoquant
from autoquant.tuning.result import Verdict


def plain_top1(path: Path, case: Case, data: Path, output: str) -> float:
    """Top-1 of a saved graph: TensorFlow and NumPy, nothing of ours."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    name = next(node.name for node in graph_def.node if node.op == "Placeholder")
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return top1(case, data, lambda images: session.run(f"{output}:0", {f"{name}:0": images}))


@pytest.mark.parametrize("name", sorted(CASES))
def test_search(real_data: Path, tmp_path: Path, name: str):
    case = CASES[name]
    result = searched(case, real_data, tmp_path / "run")
    assert result.baseline == pytest.approx(case.fp32, abs=1e-9)
    assert result.model is not None
    assert result.best is not None
    inspection = autoquant.inspect(real_data / case.model)
    layers = inspection.survey.by_name
    assert Counter(layer.op for layer in inspection.survey.layers) == case.layers
    quantized = Counter(layers[name].op for name in result.best.plan.int8)
    assert quantized == case.layers if case.whole else Counter() < quantized <= Counter(case.layers)
    output = inspection.model.graph.outputs[0]
    # LiteRT, which scores the trials, rounds a few values otherwise; the best is scored in TensorFlow as well.
    assert result.score_tensorflow is not None
    assert plain_top1(result.model, case, real_data, output) == pytest.approx(result.score_tensorflow, abs=1e-9)
    assert result.score == pytest.approx(result.score_tensorflow, abs=0.002)
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
