"""INT8 around the loops of recurrent networks, whose functions stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import LiteNetwork, SavedLite, calibrated
from recurrent import lstm, predict, recurrent, sequences

from autoquant.model.litert import flatbuffer
from autoquant.model.open import open_model
from autoquant.targets.litert import LiteRTTarget

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, LiteNetwork]]:
    """A Keras model and the same calibrated for LiteRT."""

    def made(kind: str) -> tuple[Any, LiteNetwork]:
        path = tmp_path_factory.mktemp("networks") / "m.keras"
        network = recurrent(kind)
        network.save(path)
        return network, calibrated(LiteRTTarget().lowered(open_model(path)), sequences(64))

    return made


def functions(saved: SavedLite) -> list[Any]:
    """All that is in the subgraphs behind the first one."""
    return [
        (
            [(t.name, t.type, flatbuffer.shape_of(t), _bytes(saved, t)) for t in graph.tensors],
            [(flatbuffer.op_name(saved.objects, op), [*op.inputs], [*op.outputs]) for op in graph.operators],
            [*graph.inputs],
            [*graph.outputs],
        )
        for graph in saved.objects.subgraphs[1:]
    ]


def _bytes(saved: SavedLite, tensor: Any) -> bytes:
    value = flatbuffer.value_of(saved.objects, tensor)
    return b"" if value is None else value.tobytes()


@pytest.mark.parametrize("io", ["float32", "int8"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "bidirectional", "masked"])
def test_layers_are_int8_and_functions_float(
    kind: str, io: str, networks: Callable[[str], tuple[Any, LiteNetwork]], tmp_path: Path
) -> None:
    network, lite = networks(kind)
    saved = lite.saved(tmp_path / "m.tflite", io=io)
    before = functions(SavedLite(lite.lite.content))
    assert len(before) == (4 if kind == "bidirectional" else 2)
    assert functions(saved) == before
    assert saved.kinds.count("FULLY_CONNECTED") == len(lite.layers) >= 3
    assert "FULLY_CONNECTED*" not in saved.kinds
    for count in (1, 5):
        x = sequences(count, seed=1)
        (found,) = saved.run(x).values()
        if io == "int8":
            scale, zero = saved.tensor(saved.graph.outputs[0]).quantization.scale[0], -128
            found = (found.astype(np.float32) - zero) * scale
        assert 0 < np.abs(found - predict(network, x)[0]).max() < 0.05


def test_the_loop_computes_in_float_what_numpy_does(
    networks: Callable[[str], tuple[Any, LiteNetwork]], tmp_path: Path
) -> None:
    network, lite = networks("lstm")
    saved = lite.saved(tmp_path / "m.tflite")
    loop = saved.operator("WHILE")
    names = [flatbuffer.tensor_name(tensor) for tensor in saved.graph.tensors]
    ends = (names[loop.inputs[-1]], names[loop.outputs[2]])
    values = saved.run(sequences(6, seed=1), names=ends)
    (layer,) = (layer for layer in network.layers if "lstm" in layer.name)
    wanted = lstm(values[ends[0]].astype(np.float64).swapaxes(0, 1), *layer.get_weights())
    np.testing.assert_allclose(values[ends[1]][0], wanted, atol=1e-6)


def test_a_plan_can_leave_layers_in_float(networks: Callable[[str], tuple[Any, LiteNetwork]], tmp_path: Path) -> None:
    _, lite = networks("stacked")
    first, between, *_ = lite.layers
    saved = lite.saved(tmp_path / "m.tflite", first, between)
    assert [kind for kind in saved.kinds if kind.startswith("FULLY")] == ["FULLY_CONNECTED*"] * 2 + [
        "FULLY_CONNECTED"
    ] * 2
    assert functions(saved) == functions(SavedLite(lite.lite.content))
