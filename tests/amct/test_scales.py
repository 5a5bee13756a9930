"""The scales of a calibration against IFMR and ARQ as AMCT documents them, computed here in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

import autoquant as amct
from autoquant.formats.record_text import load_record

CONFIG, RECORD = Path("config.json"), Path("record.txt")
BATCHES = 2


def ifmr(values: np.ndarray, *, asymmetric: bool) -> tuple[float, int]:
    """Scale and offset, with AMCT's defaults: percentiles 0.999999, 61 candidates from 0.7 to 1.3 times the maximum."""
    ordered = np.sort(values.astype(np.float64).reshape(-1))
    k = max(1, len(ordered) - int(np.floor(0.999999 * len(ordered))))
    high, low = max(ordered[-k], 0.0), min(ordered[k - 1], 0.0)
    errors, scales = [], []
    for number in range(61):
        ratio = 0.7 + 0.01 * number
        if asymmetric:
            bounds = low, ratio * high
            scale = (bounds[1] - bounds[0]) / 255
        else:
            scale = ratio * (high / 127 if high > -low else -low / 128)
            bounds = -128 * scale, 127 * scale
        rounded = np.round(np.clip(ordered, *bounds) / scale) * scale
        errors.append(np.mean((rounded - ordered) ** 2))
        scales.append(scale)
    scale = scales[int(np.argmin(errors))]
    return scale, int(-128 - np.round(low / scale)) if asymmetric else 0


def arq(weight: np.ndarray, axes: tuple[int, ...]) -> Any:
    """One scale for each channel, channels being numbered by `axes` in row-major order."""
    others = tuple(axis for axis in range(weight.ndim) if axis not in axes)
    most, least = weight.astype(np.float64).max(axis=others), weight.astype(np.float64).min(axis=others)
    return np.where(most > -least, most / 127, -least / 128).reshape(-1)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_scales_of_a_calibration(
    live: Any, load_pb: Callable[[Path], Any], tiny: Tiny, images: NDArray[Any], asymmetric: bool
) -> None:
    import tensorflow as tf

    batches = np.split(images, BATCHES)
    reads = {"conv": "image:0", "depthwise": "Relu:0", "dense": "Mean:0"}
    float_graph = load_pb(tiny.model)
    assert [float_graph.get_operation_by_name(layer).inputs[0].name for layer in reads] == list(reads.values())
    with tf.compat.v1.Session(graph=float_graph) as session:
        seen = [session.run(list(reads.values()), {"image:0": batch}) for batch in batches]
    activations = {layer: np.concatenate(parts) for layer, parts in zip(reads, zip(*seen, strict=True), strict=True)}

    amct.create_quant_config(CONFIG, live, batch_num=BATCHES, activation_offset=asymmetric)
    amct.quantize_model(live, CONFIG, RECORD)
    with live.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        for batch in batches:
            session.run("scores:0", {"image:0": batch})

    record = load_record(RECORD)
    for layer, axes in (("conv", (3,)), ("depthwise", (2, 3)), ("dense", ())):
        scale, offset = ifmr(activations[layer], asymmetric=asymmetric)
        assert record[layer].activation.scale == pytest.approx(scale, rel=1e-6)
        assert record[layer].activation.offset == offset
        np.testing.assert_allclose(record[layer].scale_w, arq(tiny.weights[layer], axes), rtol=1e-6)


def test_a_balanced_layer(live: Any, tiny: Tiny, images: NDArray[Any]) -> None:
    """DMQ: max|X|^0.5 / max|W|^0.5 of each input channel, the input divided by it and the weight multiplied."""
    import tensorflow as tf

    amct.create_quant_config(CONFIG, live)
    config = json.loads(CONFIG.read_text())
    config["conv"]["dmq_balancer_param"] = 0.5
    CONFIG.write_text(json.dumps(config))
    amct.quantize_model(live, CONFIG, RECORD)
    with live.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run("scores:0", {"image:0": images})

    weight = tiny.weights["conv"]
    factors = np.sqrt(np.abs(images).max(axis=(0, 1, 2)) / np.abs(weight).max(axis=(0, 1, 3)))
    found = load_record(RECORD)["conv"]
    np.testing.assert_allclose(found.balance, factors, rtol=1e-6)
    scale, offset = ifmr(images / factors, asymmetric=True)
    assert found.activation.scale == pytest.approx(scale, rel=1e-6)
    assert found.activation.offset == offset
    np.testing.assert_allclose(found.scale_w, arq(weight * factors[:, None], (3,)), rtol=1e-6)
    amct.save_model(tiny.model, "scores:0", RECORD, "out/tiny")
