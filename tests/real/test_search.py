"""Whole searches on real models. Every best model's score is computed again here, in a plain TensorFlow session."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from real_cases import CASES, TIGHT, Case, SplitPositions, check_claim, right, searched

import autoquant


def plain_right(path: Path, case: Case, data: Path, output: str) -> Any:
    """Which samples a saved graph has right, (samples,): TensorFlow and NumPy, nothing of ours."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    name = next(node.name for node in graph_def.node if node.op == "Placeholder")
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return right(case, data, lambda images: session.run(f"{output}:0", {f"{name}:0": images}))


@pytest.mark.parametrize("name", sorted(CASES | TIGHT))
def test_search(real_data: Path, tmp_path: Path, name: str) -> None:
    case = (CASES | TIGHT)[name]
    result = searched(case, real_data, tmp_path / "run")
    assert result.model is not None
    assert result.best is not None
    inspection = autoquant.inspect(real_data / case.model)
    layers = inspection.survey.by_name
    assert Counter(layer.op for layer in inspection.survey.layers) == case.layers
    quantized = Counter(layers[name].op for name in result.best.plan.int8)
    assert quantized <= Counter(case.layers)
    assert quantized.total() >= sum(case.layers.values()) - case.in_float
    before = plain_right((real_data / case.model).with_suffix(".pb"), case, real_data, case.output)
    after = plain_right(result.model, case, real_data, inspection.model.graph.outputs[0])
    parts = SplitPositions.of(tmp_path / "run", len(after))
    assert before.mean() == pytest.approx(case.fp32, abs=1e-9)  # as published
    assert result.baseline == pytest.approx(before[parts.search].mean(), abs=1e-9)
    # LiteRT, which scores the trials, rounds a few values otherwise; the best is certified, or scored, in TensorFlow.
    score = after[parts.search].mean()
    assert result.score == pytest.approx(score, abs=max(0.002, 1.5 / len(parts.search)))
    assert result.baseline is not None and result.score is not None
    assert result.drop == pytest.approx(result.baseline - result.score, abs=1e-9)
    check_claim(case, result, parts, before, after)
    if result.certificate is None:
        assert result.score_tensorflow == pytest.approx(score, abs=1e-9)
