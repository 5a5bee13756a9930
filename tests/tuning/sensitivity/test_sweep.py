"""Variants that run part by part, from what the float model made in front of them, against a file for each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensitivity_requests import opened, sensitivity_request

from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.model.litert import parts
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.parts import Cutter
from autoquant.model.open import open_model
from autoquant.quantization.affine import Affine
from autoquant.tuning.sensitivity import sweep as module
from autoquant.tuning.sensitivity.candidates import fake_quantized_layers
from autoquant.tuning.sensitivity.divergence import divergence, divergences, read_outputs
from autoquant.tuning.sensitivity.likelihoods import PLAIN
from autoquant.tuning.sensitivity.request import SensitivityRequest
from autoquant.tuning.sensitivity.sweep import Sweep
from autoquant.tuning.sensitivity.variants import RoundedTensor, Variant

SHAPE = (150, 6, 6, 2)


def network(tf: Any, x: Any) -> Any:
    """Residual blocks, a tensor that lives long, and an output that is made early."""
    rng = np.random.default_rng(2)

    def weight(*shape: int) -> Any:
        return tf.constant(rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5, tf.float32)

    y = tf.nn.conv2d(x, weight(3, 3, 2, 4), 1, "SAME", name="stem")
    early = tf.matmul(tf.reduce_mean(tf.nn.relu(y), [1, 2]), weight(4, 3), name="early")
    for number in range(4):
        inner = tf.nn.relu(tf.nn.conv2d(y, weight(3, 3, 4, 4), 1, "SAME", name=f"a{number}"))
        y = tf.nn.relu(y + tf.nn.conv2d(inner, weight(1, 1, 4, 4), 1, "SAME", name=f"b{number}"))
    y = tf.nn.tanh(y) + tf.nn.conv2d(x, weight(1, 1, 2, 4), 1, "SAME", name="past")
    return early, tf.matmul(tf.reshape(y, (-1, 144)), weight(144, 3), name="last")


@pytest.fixture(scope="module")
def request_of_lite(tmp_path_factory: pytest.TempPathFactory) -> SensitivityRequest:
    folder = tmp_path_factory.mktemp("sweep")
    lite = convert(opened(folder, network, (None, *SHAPE[1:])).graph)
    (folder / "net.tflite").write_bytes(lite.content)
    x = np.random.default_rng(1).normal(size=SHAPE)
    return sensitivity_request(open_model(folder / "net.tflite"), x, target="litert")


def lite_of(request: SensitivityRequest) -> LiteGraph:
    assert isinstance(request.model.program, LiteGraph)
    return request.model.program


def variants_of(request: SensitivityRequest) -> Mapping[Any, Variant]:
    """Every layer, and every tensor that an operator makes or that the model is fed with."""
    lite = lite_of(request)
    tensors = [*map(int, lite.subgraph.inputs), *lite.makers]
    return {
        **dict(fake_quantized_layers(request)),
        **{tensor: RoundedTensor(tensor, Affine(0.0625, 3)) for tensor in tensors},
    }


def alone(request: SensitivityRequest, variant: Variant) -> float:
    """The divergence by a file in which just one operator or tensor is another."""
    lite, data = lite_of(request), request.data
    builder, names = LiteBuilder(lite), lite.outputs
    outputs = dict(zip(names, map(int, lite.subgraph.outputs), strict=True))
    if isinstance(variant, FakeQuantized):
        fake_quantize(builder, builder.operator(variant.operator), variant, at=variant.operator)
    else:
        at = lite.makers.get(variant.tensor, -1) + 1
        rounded = builder.quantize_dequantize(
            variant.tensor, variant.affine.scale, variant.affine.offset, bits=variant.affine.bits, at=at
        )
        outputs = {name: rounded if tensor == variant.tensor else tensor for name, tensor in outputs.items()}
        for reader in lite.readers.get(variant.tensor, ()):
            op = builder.operator(reader)
            op.inputs = [rounded if tensor == variant.tensor else tensor for tensor in op.inputs]
    total = 0.0
    with (
        closing(LiteRTRunner(lite.content, lite.inputs, names, 1)) as plain,
        closing(LiteRTRunner(builder.write(outputs), lite.inputs, names, 1)) as other,
    ):
        for batch in data.batches(50):
            before, after = plain(batch.inputs), other(batch.inputs)
            for name, likelihood in read_outputs(lite, data, PLAIN).items():
                total += float(np.maximum(likelihood.divergence(before[name], after[name]), 0.0).sum())
    return total / len(data)


@pytest.mark.parametrize(("least", "room"), [(1, 1 << 27), (1, 60_000), (3, 1 << 27), (1000, 1 << 27)])
def test_parts_change_nothing(
    request_of_lite: SensitivityRequest, monkeypatch: pytest.MonkeyPatch, least: int, room: int
) -> None:
    """Whatever the parts, and however few samples and variants run together."""
    monkeypatch.setattr(parts, "LEAST", least)
    monkeypatch.setattr(module, "ROOM", room)
    lite, variants = lite_of(request_of_lite), variants_of(request_of_lite)
    assert (len(Cutter(lite, ()).parts()) == 1) is (least == 1000)
    likelihoods = read_outputs(lite, request_of_lite.data, PLAIN)
    found = divergences(lite, variants.items(), request_of_lite.data, likelihoods)
    assert found.keys() == variants.keys()
    for key, value in found.items():
        assert value == pytest.approx(alone(request_of_lite, variants[key]), rel=1e-4, abs=1e-9), key


def test_operators_run_for_a_variant_from_its_own_part_on(
    request_of_lite: SensitivityRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part runs once for the float rows, and once for all variants in front of it together."""
    monkeypatch.setattr(parts, "LEAST", 1)
    rows: list[int] = []
    call = LiteRTRunner.__call__

    def counted(self: LiteRTRunner, inputs: Mapping[str, Any]) -> Any:
        rows.append(len(next(iter(inputs.values()))))
        return call(self, inputs)

    lite, data = lite_of(request_of_lite), request_of_lite.data
    variants, likelihoods = dict(fake_quantized_layers(request_of_lite)), read_outputs(lite, data, PLAIN)
    with closing(Sweep.of(lite, data, likelihoods)) as sweep:
        count = len(sweep.parts)
        monkeypatch.setattr(LiteRTRunner, "__call__", counted)
        sweep.measured(list(variants.values()), data.subset(np.arange(10)), lambda done: None)
        own = sorted(sweep._part_of(variant) for variant in variants.values())
    expected = sum(10 * (1 + sum(part <= number for part in own)) for number in range(count))
    assert sum(rows) == expected - 10 * len(own)  # in its own part a variant is a copy of operators in the same file
    assert len(rows) <= 2 * count


def test_a_model_of_one_sample_at_a_time(request_of_lite: SensitivityRequest, tmp_path: Path) -> None:
    """Reshaped so that LiteRT cannot open its batch."""

    def write(tf: Any, x: Any) -> Any:
        y = tf.matmul(x, tf.constant(np.random.default_rng(3).normal(size=(6, 6)), tf.float32), name="one")
        for number in range(5):
            y = tf.nn.tanh(y)
            weight = tf.constant(np.random.default_rng(number).normal(size=(6, 6)), tf.float32)
            y = tf.matmul(tf.reshape(y, (1, 6)), weight, name=f"d{number}")
        return y

    asked = sensitivity_request(opened(tmp_path, write, (1, 6)), np.random.default_rng(4).normal(size=(20, 6)))
    found = divergence(asked).values
    assert found.keys() == {"one", *(f"d{number}" for number in range(5))}
    assert all(value > 0.0 for (value,) in found.values())
