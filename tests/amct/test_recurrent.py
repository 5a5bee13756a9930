"""AMCT's functions on recurrent networks, in either control flow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recurrent import freeze, lstm, recurrent, run_pb, sequences

import autoquant as amct
from autoquant.formats.record_text import load_record
from autoquant.targets.check import check

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CONFIG, RECORD = Path("config.json"), Path("record.txt")


def int8_dense(x: Any, weights: Any, record: Any, *, relu: bool) -> Any:
    """A Dense of Keras in INT8, in float64: AMCT's arithmetic from the scales of a record."""
    kernel, bias = (np.asarray(one, np.float64) for one in weights)
    scale_d, scale_w = record.activation.scale, np.asarray(record.scale_w, np.float64)
    steps = np.clip(np.rint(x / scale_d) + record.activation.offset, -128, 127) - record.activation.offset
    sums = steps @ np.clip(np.rint(kernel / scale_w), -128, 127) + np.rint(bias / (scale_d * scale_w))
    return np.maximum(sums * scale_d * scale_w, 0) if relu else sums * scale_d * scale_w


@pytest.mark.parametrize("lowered", [True, False])
def test_a_calibrated_lstm_is_what_numpy_says(lowered: bool, load_pb: Callable[[Path], Any]) -> None:
    import tensorflow as tf

    network, x = recurrent("lstm"), sequences(32)
    pb = freeze(network, Path("m.pb"), lowered=lowered)
    graph = load_pb(pb)
    amct.create_quant_config(CONFIG, graph, batch_num=2)
    amct.quantize_model(graph, CONFIG, RECORD)
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        session.run(tf.compat.v1.global_variables_initializer())
        for batch in (x[:16], x[16:]):
            session.run("Identity:0", {"x:0": batch})
    saved = amct.save_model(pb, ["Identity"], RECORD, "out/m")
    record = load_record(RECORD)
    assert check(saved.model, record).layers == {"MatMul": 3}
    weights = {layer.name: layer.get_weights() for layer in network.layers}
    scales = {name.split("/")[1].removesuffix("_1"): one for name, one in record.items()}
    front = int8_dense(x.astype(np.float64), weights["front"], scales["front"], relu=True)
    (recurrence,) = (layer for layer in network.layers if "lstm" in layer.name)
    last = lstm(front, *weights[recurrence.name])
    logits = int8_dense(
        int8_dense(last, weights["hidden"], scales["hidden"], relu=True), weights["head"], scales["head"], relu=False
    )
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    (found,) = run_pb(saved.model, ["Identity:0"], x)
    assert wanted.std(axis=0).max() > 0.03
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["gru", "bidirectional"])
def test_other_recurrences_are_calibrated_and_saved(kind: str, load_pb: Callable[[Path], Any]) -> None:
    import tensorflow as tf

    network, x = recurrent(kind), sequences(32)
    pb = freeze(network, Path("m.pb"), lowered=True)
    graph = load_pb(pb)
    amct.create_quant_config(CONFIG, graph)
    assert len(amct.quantize_model(graph, CONFIG, RECORD)) == 3
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        session.run(tf.compat.v1.global_variables_initializer())
        plain = session.run("Identity:0", {"x:0": x})
    saved = amct.save_model(pb, ["Identity"], RECORD, "out/m")
    (found,) = run_pb(saved.model, ["Identity:0"], x)
    np.testing.assert_allclose(plain, network(x), atol=1e-6)
    assert 0 < np.abs(found - plain).max() < 0.05
