from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from graph_writing import normal, placeholder
from tiny_model import Tiny

from autoquant.errors import ModelError, UsageError
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer, interpreter
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.survey import survey_lite
from autoquant.model.open import open_model
from autoquant.model.shapes import import_graph

RNG = np.random.default_rng(6)


def edited(path: Path, change: Callable[[Any], None]) -> Path:
    """The file, its objects changed."""
    model = flatbuffer.read(path.read_bytes())
    change(model)
    path.write_bytes(flatbuffer.write(model))
    return path


def test_layers_are_called_as_their_results(saved: Path, lite: LiteGraph) -> None:
    model = open_model(saved)
    assert (model.name, model.inputs[0].name, model.inputs[0].shape) == ("small", "x", (None, 6, 6, 2))
    assert model.inputs[0].dtype == np.float32
    found = model.program
    assert isinstance(found, LiteGraph)
    results = [
        flatbuffer.tensor_name(found.subgraph.tensors[found.subgraph.operators[i].outputs[0]]) for i in (0, 1, 3)
    ]
    assert list(found.layers) == results
    assert [layer.op for layer in survey_lite(found).layers] == ["Conv2D", "AvgPool", "MatMul"]
    assert found.content == lite.content  # it was tidy


def test_names_come_from_the_signature(
    saved: Path, ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    def rename(model: Any) -> None:
        model.signatureDefs[0].inputs[0].name, model.signatureDefs[0].outputs[0].name = b"image", b"scores"

    model = open_model(edited(saved, rename))
    assert (model.program.inputs, model.program.outputs) == (("image",), ("scores",))
    assert model.inputs[0].name == "image"
    assert isinstance(model.program, LiteGraph)
    assert ran_lite(model.program.content, {"image": normal(RNG, 3, 6, 6, 2)})["scores"].shape == (3, 3)


def test_a_model_without_a_signature_gets_one(
    saved: Path, ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    def strip(model: Any) -> None:
        model.signatureDefs = None
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].name = b"serving_default_x:0"

    model = open_model(edited(saved, strip))
    assert (model.program.inputs, model.program.outputs) == (("serving_default_x:0",), ("y",))
    assert isinstance(model.program, LiteGraph)
    assert ran_lite(model.program.content, {"serving_default_x:0": normal(RNG, 3, 6, 6, 2)})["y"].shape == (3, 3)


def second_signature(model: Any) -> None:
    other = schema.SignatureDefT()
    other.signatureKey, other.subgraphIndex = b"features", 0
    other.inputs, other.outputs = model.signatureDefs[0].inputs, model.signatureDefs[0].outputs
    model.signatureDefs.append(other)


def test_one_of_several_signatures_is_chosen(saved: Path) -> None:
    edited(saved, second_signature)
    with pytest.raises(
        ModelError, match="has several signatures: serving_default, features; choose one with --signature"
    ):
        open_model(saved)
    assert open_model(saved, signature="features").program.inputs == ("x",)
    with pytest.raises(ModelError, match=r"has no signature 'feature'; did you mean 'features'\?"):
        open_model(saved, signature="feature")


def test_a_signature_of_another_subgraph_brings_its_own(
    saved: Path, build: Callable[..., Graph], ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    other = flatbuffer.read(convert(build(lambda: tf.linalg.matmul(placeholder(None, 2), tf.eye(2), name="y"))).content)

    def join(model: Any) -> None:
        second_signature(model)
        graph, codes, buffers = other.subgraphs[0], len(model.operatorCodes), len(model.buffers)
        for op in graph.operators:
            op.opcodeIndex += codes
        for tensor in graph.tensors:
            tensor.buffer += buffers
        model.operatorCodes += other.operatorCodes
        model.buffers += other.buffers
        model.subgraphs.append(graph)
        model.signatureDefs[1].subgraphIndex = 1
        model.signatureDefs[1].inputs, model.signatureDefs[1].outputs = (
            other.signatureDefs[0].inputs,
            other.signatureDefs[0].outputs,
        )

    size = saved.stat().st_size
    edited(saved, join)
    model = open_model(saved, signature="features")
    assert isinstance(model.program, LiteGraph)
    assert len(model.program.content) < size
    x = normal(RNG, 3, 2)
    assert np.array_equal(ran_lite(model.program.content, {"x": x})["y"], x)


def quantized(graph: Any, **options: Any) -> bytes:
    """The graph converted with TensorFlow's own quantization."""
    tf_graph = import_graph(graph)
    with tf.compat.v1.Session(graph=tf_graph) as session:
        tensors = [tf_graph.get_tensor_by_name(name) for name in ("x:0", "y:0")]
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, tensors[:1], tensors[1:])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if "representative_dataset" in options:
            converter.representative_dataset = options["representative_dataset"]
        return bytes(converter.convert())


@pytest.fixture(scope="module")
def large(build: Callable[..., Graph]) -> Any:
    """A graph whose weight is large enough for dynamic-range quantization."""

    def write() -> None:
        t = tf.linalg.matmul(placeholder(None, 64), tf.constant(normal(RNG, 64, 64)))
        tf.identity(tf.nn.relu(t), name="y")

    return build(write)


def samples() -> Any:
    for _ in range(4):
        yield [normal(RNG, 1, 64)]


QUANTIZED: dict[str, tuple[dict[str, Any], str]] = {
    "INT8": (
        {"representative_dataset": samples},
        "is quantized already: its tensor '.*' is INT8; give the float model",
    ),
    "dynamic range": ({}, r"has quantized weights already \(dynamic range\): '.*' is INT8; give the float model"),
}


@pytest.mark.parametrize(("options", "message"), QUANTIZED.values(), ids=QUANTIZED.keys())
def test_quantized_models_are_refused(options: dict[str, Any], message: str, large: Graph, tmp_path: Path) -> None:
    path = tmp_path / "quantized.tflite"
    path.write_bytes(quantized(large, **options))
    with pytest.raises(ModelError, match=message):
        open_model(path)


def test_weights_with_a_scale_for_each_block_are_refused(large: Graph, tmp_path: Path) -> None:
    from litert_quantizer import quantizer, recipe

    made = quantizer.Quantizer(bytearray(convert(large).content))
    made.load_quantization_recipe(recipe.dynamic_wi4b32_afp32())
    path = tmp_path / "blocks.tflite"
    path.write_bytes(made.quantize().quantized_model)
    with pytest.raises(ModelError, match=r"has quantized weights already .*: '.*' is INT4; give the float"):
        open_model(path)


def custom(model: Any) -> None:
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"MyOperator"


def index_beyond(model: Any) -> None:
    model.subgraphs[0].operators[-1].inputs[0] = 999


def half_a_weight(model: Any) -> None:
    graph = model.subgraphs[0]
    buffer = model.buffers[graph.tensors[graph.operators[0].inputs[1]].buffer]
    buffer.data = buffer.data[: len(buffer.data) // 2]


def no_stride(model: Any) -> None:
    model.subgraphs[0].operators[0].builtinOptions.strideH = 0


def no_options(model: Any) -> None:
    model.subgraphs[0].operators[0].builtinOptions, model.subgraphs[0].operators[0].builtinOptionsType = None, 0


def text_input(model: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].type = schema.TensorType.STRING


DAMAGED = {
    custom: "has the custom operator 'MyOperator'.*builtin operators only",
    index_beyond: "is damaged: operator 3 reads a tensor that nothing made",
    half_a_weight: "is damaged",
    no_stride: "LiteRT cannot run it: .*stride",
    no_options: "is damaged: CONV_2D .* has no options",
    text_input: "its input 'x' is of type STRING|LiteRT cannot run it",
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_unusable_files_say_why(change: Callable[[Any], None], message: str, saved: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_model(edited(saved, change))


@pytest.fixture(scope="module")
def looped(build: Callable[..., Graph]) -> bytes:
    """A .tflite with a MatMul behind a loop."""

    def write() -> None:
        x = placeholder(None, 4)
        tf.compat.v1.enable_control_flow_v2()
        t = tf.while_loop(lambda t: tf.reduce_sum(t) < 10.0, lambda t: [t + 1.0], [tf.abs(x)])
        tf.linalg.matmul(t[0] if isinstance(t, list) else t, 2.0 * tf.eye(4), name="y")

    return convert(build(write)).content


def behind_another(content: bytes) -> bytes:
    """The same file with a copy of its condition as the first subgraph, and so another number for all others."""
    model = flatbuffer.read(content)
    options = next(op.builtinOptions for op in model.subgraphs[0].operators if flatbuffer.op_name(model, op) == "WHILE")
    model.subgraphs.insert(0, deepcopy(model.subgraphs[options.condSubgraphIndex]))
    options.condSubgraphIndex += 1
    options.bodySubgraphIndex += 1
    model.signatureDefs[0].subgraphIndex = 1
    return flatbuffer.write(model)


@pytest.mark.parametrize("change", [bytes, behind_another])
def test_loops_are_kept_with_what_they_run(
    change: Callable[[bytes], bytes], looped: bytes, tmp_path: Path, ran_lite: Callable[..., Any]
) -> None:
    path = tmp_path / "loop.tflite"
    path.write_bytes(change(looped))
    lite = open_model(path).program
    assert isinstance(lite, LiteGraph)
    assert len(lite.model.subgraphs) == 3
    # abs(x) sums to 6: one is added to each until all sum to 10 or more.
    found = ran_lite(lite.content, {"x": np.array([[1, -2, 3, 0]], np.float32)})
    np.testing.assert_array_equal(found["y"], [[4, 6, 8, 2]])
    assert [layer.op for layer in survey_lite(lite).layers] == ["MatMul"]


def without_body(model: Any) -> None:
    (loop,) = (op for op in model.subgraphs[0].operators if flatbuffer.op_name(model, op) == "WHILE")
    loop.builtinOptions.bodySubgraphIndex = 9


def test_a_loop_without_its_body_is_damaged(looped: bytes, tmp_path: Path) -> None:
    path = tmp_path / "loop.tflite"
    path.write_bytes(looped)
    with pytest.raises(ModelError, match=r"WHILE runs a part that is not there|is damaged or cut short"):
        open_model(edited(path, without_body))


def test_a_file_of_another_kind_or_cut_short_or_not_there(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for part, message in (
        (b"", "is empty"),
        (b"PK\x03\x04 no model", "is not a .tflite: the mark TFL3"),
        (content[: len(content) // 2], "is damaged or cut short: .*is the file whole"),
        (content[:8], "is damaged or cut short"),
    ):
        saved.write_bytes(part)
        with pytest.raises(ModelError, match=message):
            open_model(saved)
    with pytest.raises(ModelError, match="there is no such file"):
        open_model(tmp_path / "other.tflite")
    with pytest.raises(ModelError, match="cannot be read"):
        (tmp_path / "folder.tflite").mkdir()
        open_model(tmp_path / "folder.tflite")


@pytest.mark.parametrize("part", ["operatorCodes", "subgraphs", "buffers"])
def test_a_file_without_a_part_that_litert_takes_for_granted(part: str, saved: Path) -> None:
    def without(model: Any) -> None:
        setattr(model, part, None)

    with pytest.raises(ModelError, match=r"is damaged: it has no (operator codes|subgraphs|buffers)"):
        open_model(edited(saved, without))


def test_a_sample_that_does_not_fit_into_memory(saved: Path) -> None:
    def vast(model: Any) -> None:
        graph = model.subgraphs[0]
        for index in graph.inputs:
            tensor = graph.tensors[index]
            tensor.shape = [2**31 - 1, 2**20, *tensor.shape[2:]]
            tensor.shapeSignature = None

    with pytest.raises(ModelError, match=r"does not fit into memory|LiteRT cannot run it"):
        open_model(edited(saved, vast))


def test_a_large_sample_is_not_run_to_know_its_shapes(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = open_model(saved).program
    assert isinstance(program, LiteGraph)
    known = interpreter.tensor_shapes(program)
    monkeypatch.setattr(interpreter, "LARGE", 6 * 6 * 2 - 1)
    monkeypatch.setattr(interpreter, "run", None)
    assert interpreter.tensor_shapes(program) == known


@pytest.mark.parametrize("batch", [1, None])
def test_inputs_that_are_no_real_numbers(batch: int | None, build: Callable[..., Graph], tmp_path: Path) -> None:
    def write() -> None:
        x = tf.compat.v1.placeholder(tf.complex64, (batch, 8), name="x")
        tf.identity(tf.linalg.matmul(tf.abs(x), tf.constant(normal(RNG, 8, 3))), name="y")

    path = tmp_path / "complex.tflite"
    path.write_bytes(convert(build(write)).content)
    with pytest.raises(ModelError, match="its input 'x' is of type COMPLEX64; only numbers"):
        open_model(path)


def test_options_that_are_for_other_files(saved: Path, tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="--inputs, --outputs: are for files of TensorFlow"):
        open_model(saved, outputs=["y"])
    with pytest.raises(UsageError, match=r"--signature: is for SavedModels and \.tflite files"):
        open_model(tiny.model, signature="features")
    with pytest.raises(ModelError, match="has no graph of TensorFlow"):
        _ = open_model(saved).graph


def fixed(path: Path, graph: Any) -> Path:
    """The graph as most .tflite files are: for one sample, and nowhere a sign that it might be more."""
    model = flatbuffer.read(convert(graph).content)
    for tensor in model.subgraphs[0].tensors:
        assert flatbuffer.shape_of(tensor)[:1] != (None,)
        tensor.shapeSignature = None
    path.write_bytes(flatbuffer.write(model))
    return path


def test_a_batch_fixed_to_one_is_opened_where_samples_stay_apart(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
    tmp_path: Path,
) -> None:
    def write() -> None:
        x = placeholder(1, 6, 6, 2)
        t = tf.nn.relu(tf.nn.conv2d(x, tf.constant(normal(RNG, 3, 3, 2, 4)), 2, "SAME", name="conv"))
        t = tf.reduce_mean(tf.nn.softmax(tf.reshape(t, (1, 9, 4))), axis=1)
        tf.identity(tf.linalg.matmul(t, tf.constant(normal(RNG, 4, 3))), name="y")

    graph = build(write)
    model = open_model(fixed(tmp_path / "fixed.tflite", graph))
    assert isinstance(model.program, LiteGraph)
    kinds = [flatbuffer.op_name(model.program.model, op) for op in model.program.subgraph.operators]
    assert "RESHAPE" in kinds
    assert model.inputs[0].shape == (None, 6, 6, 2)
    x = normal(RNG, 5, 6, 6, 2)
    want = np.concatenate([run(graph, {"x": one[None]})[0] for one in x])
    np.testing.assert_allclose(ran_lite(model.program.content, {"x": x})["y"], want, rtol=1e-4, atol=1e-4)
    assert survey_lite(model.program).layers[0].output_shape == (1, 3, 3, 4)


FIXED: dict[str, Callable[[Any], Any]] = {
    "samples mixed": lambda x: x - tf.reduce_mean(x),
    "the first axis is not a batch": lambda x: tf.transpose(tf.reshape(x, (3, 4))),
    "a size that is written down": lambda x: tf.concat([x, tf.ones((1, 2))], 1),
}


@pytest.mark.parametrize("write", FIXED.values(), ids=FIXED.keys())
def test_elsewhere_it_stays_fixed(
    write: Callable[[Any], Any],
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
    tmp_path: Path,
) -> None:
    kernel = tf.constant
    graph = build(
        lambda: tf.identity(write(tf.linalg.matmul(placeholder(1, 12), kernel(normal(RNG, 12, 12)))), name="y")
    )
    model = open_model(fixed(tmp_path / "fixed.tflite", graph))
    assert model.inputs[0].shape == (1, 12)
    x = normal(RNG, 1, 12)
    assert isinstance(model.program, LiteGraph)
    np.testing.assert_allclose(
        ran_lite(model.program.content, {"x": x})["y"], run(graph, {"x": x})[0], rtol=1e-4, atol=1e-4
    )


def test_tensorflow_is_not_loaded(saved: Path) -> None:
    code = """
import sys
from autoquant.model.open import open_model
from autoquant.model.litert.survey import survey_lite
assert survey_lite(open_model(sys.argv[1]).program).layers
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True, capture_output=True)


FUZZ = """
import sys
from pathlib import Path
from autoquant.errors import AutoquantError
from autoquant.model.litert.survey import survey_lite
from autoquant.model.open import open_model
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        survey_lite(open_model(path).program)
        print("opened")
    except AutoquantError as error:
        print("refused", error)
"""


def test_damaged_files_are_opened_or_refused_and_never_crash(lite: LiteGraph, tmp_path: Path) -> None:
    random.seed(8)
    files = 150
    for number in range(files):
        content = bytearray(lite.content)
        if number % 10 == 0:
            del content[random.randrange(len(content)) :]
        else:
            for _ in range(random.choice((1, 2, 5))):
                content[random.randrange(len(content))] = random.randrange(256)
        (tmp_path / f"{number:03}.tflite").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", FUZZ, str(tmp_path)], check=True, capture_output=True, text=True)
    told = done.stdout.splitlines()
    assert len(told) == files
    assert 10 < sum(line == "opened" for line in told) < files - 10
