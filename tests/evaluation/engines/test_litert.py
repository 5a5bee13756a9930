"""Features of LiteRT alone: files with integer inputs and outputs, tensors of a .tflite as outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tiny_model import Tiny

from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner, fetching, largest_tensor
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.open import open_model


@pytest.fixture(scope="module")
def lite(tiny: Tiny) -> LiteGraph:
    return convert(open_model(tiny.model).graph)


def int8_copy(*, scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> LiteGraph:
    """A .tflite of one QUANTIZE: int8 `x` (batch, 2) to int8 `y` with another scale and zero point."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    code, op = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version, model.operatorCodes = 2, [code]
    op.opcodeIndex, op.inputs, op.outputs = 0, [0], [1]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [0], [1], [op]
    for name, scale, zero in (("x", scale_in, zero_in), ("y", scale_out, zero_out)):
        tensor, found = schema.TensorT(), schema.QuantizationParametersT()
        tensor.name, tensor.type, tensor.shape = name.encode(), schema.TensorType.INT8, [1, 2]
        tensor.shapeSignature, tensor.buffer = [-1, 2], 0
        found.scale, found.zeroPoint, tensor.quantization = [scale], [zero], found
        graph.tensors.append(tensor)
    flatbuffer.add_signature(model, ["x"], ["y"])
    return LiteGraph(flatbuffer.write(model), ("x",), ("y",), {})


def test_int8_takes_and_gives_real_numbers() -> None:
    runner = LiteRTEngine().open_graph(int8_copy(scale_in=0.5, zero_in=3, scale_out=1.0, zero_out=-7))
    x = np.array([[0.2, 1.9], [-70.0, 70.0]], np.float32)
    got = runner({"x": x})["y"]
    # steps of the input: 0.4 -> 0, 3.8 -> 4, -131 and 124 at the ends; in steps of 1: 0, 2, -65.5 up or down, 62
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], [0.0, 2.0])
    assert got[1, 0] in (-65.0, -66.0) and got[1, 1] == 62.0


@pytest.mark.parametrize(("steps", "rounded"), [(62.5, 62), (63.5, 64), (-62.5, -62), (-63.5, -64), (0.5, 0)])
def test_ties_of_an_int8_input_are_rounded_to_even(steps: float, rounded: int) -> None:
    runner = LiteRTEngine().open_graph(int8_copy(scale_in=0.5, zero_in=0, scale_out=0.5, zero_out=0))
    assert runner({"x": np.array([[0.5 * steps, 0.0]], np.float32)})["y"].tolist() == [[0.5 * rounded, 0.0]]


def test_int8_takes_integers_as_they_are() -> None:
    runner = LiteRTEngine().open_graph(int8_copy(scale_in=0.5, zero_in=3, scale_out=0.5, zero_out=3))
    np.testing.assert_allclose(runner({"x": np.array([[3, 5]], np.int8)})["y"], [[0.0, 1.0]])


def test_all_tensors_of_a_tflite_can_be_fetched_by_their_names(lite: LiteGraph, tiny: Tiny) -> None:
    images = np.load(tiny.evaluation)["x"][:3]
    names = [name for name in lite.tensors if lite.constant(name) is None]
    assert len(names) > 4
    got = LiteRTEngine().open_graph(lite, names)({"image": images})
    assert list(got) == names
    np.testing.assert_array_equal(got["image"], images)
    want = LiteRTEngine().open_graph(lite)({"image": images})["scores"]
    np.testing.assert_allclose(got[lite.outputs[0]] if lite.outputs[0] in got else got[names[-1]], want, atol=1e-5)


def test_tensors_inside_are_views_that_may_not_be_held(lite: LiteGraph, tiny: Tiny) -> None:
    images = np.load(tiny.evaluation)["x"][:3]
    runner = LiteRTEngine().open_graph(lite, ["image", lite.outputs[0]])
    first = runner({"image": images})
    assert not first["image"].flags.owndata
    with pytest.raises(TrialError, match="does not run"):
        runner({"image": images})
    del first
    np.testing.assert_array_equal(runner({"image": images[:2]})["image"], images[:2])
    copied = LiteRTEngine().open_graph(lite)
    outputs = [copied({"image": images[:rows]}) for rows in (1, 3)]
    assert [len(one[lite.outputs[0]]) for one in outputs] == [1, 3]


def test_a_name_that_is_no_tensor_is_said(lite: LiteGraph) -> None:
    with pytest.raises(ModelError, match="nothing: is not a tensor"):
        fetching(lite, ["nothing"])


def test_files_that_are_no_tflite_are_named(lite: LiteGraph, tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"this is no model at all, however long it is")
    with pytest.raises(TrialError, match=r"LiteRT: the model does not open: .*; another version of ai-edge-litert"):
        LiteRTEngine().open_file(path, lite)


def test_the_number_of_threads_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert LiteRTEngine().threads == 3


def test_a_closed_runner_has_freed_its_interpreter(lite: LiteGraph) -> None:
    runner = LiteRTRunner(lite.content, lite.inputs, lite.outputs, 1)
    runner.close()
    assert vars(runner)["_interpreter"] is None


def test_samples_run_together_as_far_as_their_tensors_stay_in_the_cache(
    lite: LiteGraph, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.load(tiny.evaluation)["x"][:50]
    whole = LiteRTEngine().open_graph(lite)({"image": images})["scores"]
    sizes: list[int] = []
    honest = LiteRTRunner._run

    def counted(self: LiteRTRunner, feeds: Any, *, viewed: bool) -> Any:
        sizes.append(len(feeds[0]))
        return honest(self, feeds, viewed=viewed)

    monkeypatch.setattr(LiteRTRunner, "_run", counted)
    # The largest tensor is what the first layer makes: 8 x 8 x 4 float32, 1,024 bytes a sample.
    monkeypatch.setattr("autoquant.evaluation.engines.litert.CACHE", 4 * 1024 + 1000)
    got = LiteRTEngine().open_graph(lite)({"image": images})["scores"]
    assert sizes == [4] * 13  # one size, for which there is room once; the last one is filled
    assert got.shape == whole.shape
    np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-5)
    sizes.clear()
    monkeypatch.setattr("autoquant.evaluation.engines.litert.CACHE", 1)
    LiteRTEngine().open_graph(lite)({"image": images[:2]})
    assert sizes == [1, 1]
    sizes.clear()
    inner = LiteRTEngine().open_graph(lite, ["image"])({"image": images[:2]})
    assert (sizes, len(inner["image"])) == ([2], 2)  # who fetches tensors chooses how many samples' he wants


@pytest.mark.parametrize(
    ("shapes", "size"), [([([1, 3, 5], [-1, 3, 5]), ([1, 100], [1, 100])], 60), ([([], []), ([4], [4])], 1), ([], 1)]
)
def test_the_largest_tensor_of_a_sample(shapes: list[tuple[list[int], list[int]]], size: int) -> None:
    details = [{"shape": np.array(s), "shape_signature": np.array(t), "dtype": np.float32} for s, t in shapes]
    assert largest_tensor(details) == size
