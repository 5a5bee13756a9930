"""The real models: normalized, they compute what they did, and no batch norm is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.model.graph import Graph
from autoquant.model.interface import select_interface
from autoquant.model.load import load
from autoquant.model.normalize import normalize
from autoquant.model.open import open_model
from autoquant.model.shapes import tensor_name

BATCH_NORM = {"Mul", "AddV2", "Add", "Sub", "Rsqrt", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}

# model, data (None: noise in the input's shape), outputs asked for, what is left of the small operators
MODELS = [
    ("bed/easy.pb", "bed", (), {}),
    ("bed/mid.pb", "bed", (), {}),
    ("bed/hard.pb", "bed", (), {}),
    ("cifar10/resnet8.pb", "cifar10", (), {"AddV2": 3}),  # its residual additions
    ("vww/vww_96.pb", "vww", (), {}),
    ("kws/kws_ref_model.pb", "kws", (), {}),
    ("kws/kws_ref_model.keras", "kws", (), {}),
    ("super_resolution/FSRCNN_x3.pb", None, ("NHWC_output:0",), {"Add": 7, "Mul": 14, "Sub": 7}),  # its PReLUs
]
SCALE = {"bed": (127.5, 1.0), "vww": (255.0, 0.0)}


@pytest.mark.parametrize(("path", "data", "outputs", "left"), MODELS, ids=[m[0] for m in MODELS])
def test_a_real_model_computes_the_same_without_its_batch_norms(
    real_data: Path,
    run: Callable[..., list[Any]],
    path: str,
    data: str | None,
    outputs: tuple[str, ...],
    left: dict[str, int],
) -> None:
    model = open_model(real_data / path, outputs=outputs)
    if data is None:
        x = np.random.default_rng(0).uniform(size=(1, 20, 24, 1)).astype(np.float32)
    else:
        divisor, minus = SCALE.get(data, (1.0, 0.0))
        with np.load(real_data / data / "calibration.npz") as stored:
            x = stored["x"][:16].astype(np.float32) / np.float32(divisor) - np.float32(minus)
    assert len(model.inputs) == 1
    frozen = select_interface(load(real_data / path), outputs=outputs)
    assert model.graph.outputs == frozen.outputs
    fed = {model.inputs[0].name: x}
    for before, after in zip(run(frozen, fed), run(model.graph, fed), strict=True):
        assert np.isfinite(before).all()
        assert np.linalg.norm(before.astype(np.float64) - after) <= 1e-4 * np.linalg.norm(before)
    assert normalize(model.graph) is model.graph
    found = Counter(node.op for node in model.graph.nodes.values())
    assert {op: number for op, number in found.items() if op in BATCH_NORM} == left


def test_a_graph_is_not_changed_by_being_normalized(real_data: Path) -> None:
    def serialized(graph: Graph) -> dict[str, bytes]:
        return {name: node.SerializeToString(deterministic=True) for name, node in graph.nodes.items()}

    graph = select_interface(load(real_data / "cifar10" / "resnet8.pb"))
    before = serialized(graph)
    normalize(graph)
    assert serialized(graph) == before


def test_the_keras_file_and_its_frozen_graph_agree(real_data: Path, run: Callable[..., list[Any]]) -> None:
    with np.load(real_data / "kws" / "calibration.npz") as stored:
        x = stored["x"][:8].astype(np.float32)
    keras, frozen = (open_model(real_data / "kws" / f"kws_ref_model.{suffix}") for suffix in ("keras", "pb"))
    assert keras.digest != frozen.digest
    assert tensor_name(keras.graph.outputs[0]) == "dense:0"
    np.testing.assert_allclose(
        run(keras.graph, {keras.inputs[0].name: x})[0], run(frozen.graph, {"input": x})[0], atol=1e-5
    )
