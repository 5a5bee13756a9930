from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorflow.core.protobuf import meta_graph_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.load import load
from autoquant.model.model import InputSpec
from autoquant.model.open import model_digest, open_model

pytestmark = [
    # Keras converts its variables by a protocol of NumPy 1, which NumPy 2 announces the end of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
FLOAT = np.dtype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def network() -> Any:
    """Two outputs, every layer that is folded or dropped, and statistics that are not the initial ones."""
    import keras

    keras.utils.set_random_seed(4)
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    t = layers.Conv2D(4, 3, use_bias=False, name="first")(image)
    t = layers.BatchNormalization(name="norm")(t)
    t = layers.ReLU(max_value=6.0, name="relu")(t)
    t = layers.DepthwiseConv2D(3, name="depthwise")(t)
    t = layers.Dropout(0.5)(t)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(t)
    model = keras.Model(image, [layers.Dense(5, name="logits")(pooled), pooled])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def expected_of(network: Any, x: NDArray[Any]) -> list[NDArray[Any]]:
    return [np.asarray(value) for value in network(x, training=False)]


def sample() -> NDArray[Any]:
    return np.random.default_rng(1).normal(size=(3, 8, 8, 3)).astype(np.float32)


def save_h5(network: Any, path: Path) -> Path:
    network.save(path)
    return path


def as_keras_2(path: Path) -> None:
    """Rewrite the configuration in an .h5 file as Keras 2 wrote it."""
    import h5py  # type: ignore[import-untyped]  # ships no types

    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            values = layer["config"]
            values["dtype"] = "float32"
            for key in ("module", "registered_name", "build_config"):
                layer.pop(key, None)
            if layer["class_name"] == "InputLayer":
                values["batch_input_shape"] = values.pop("batch_shape")
                values["ragged"] = False
                values.pop("optional", None)
            if layer["class_name"] == "DepthwiseConv2D":
                values["groups"] = 1
            if layer["class_name"] == "BatchNormalization":
                values["axis"] = [3]
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.12.0"


def check_network(path: Path, network: Any, run: Callable[..., Any], outputs: tuple[str, ...]) -> None:
    model = open_model(path)
    assert model.inputs == (InputSpec("image", FLOAT, (None, 8, 8, 3)),)
    assert model.graph.outputs == outputs
    ops = [node.op for node in model.graph.nodes.values()]
    assert [ops.count(op) for op in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BiasAdd")] == [1, 1, 1, 3]
    assert not {"Mul", "AddV2", "Rsqrt", "FusedBatchNormV3"} & set(ops)
    x = sample()
    for actual, wanted in zip(run(model.graph, {"image": x}), expected_of(network, x), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_a_keras_file(network: Any, folder: Path, run: Callable[..., list[Any]]) -> None:
    network.save(folder / "net.keras")
    check_network(folder / "net.keras", network, run, ("logits", "pooled"))
    assert open_model(folder / "net.keras").name == "net"


@pytest.mark.parametrize("version", [3, 2])
def test_an_h5_file(network: Any, folder: Path, run: Callable[..., list[Any]], version: int) -> None:
    path = save_h5(network, folder / f"net{version}.h5")
    if version == 2:
        as_keras_2(path)
    check_network(path, network, run, ("logits", "pooled"))


def test_a_saved_model_of_keras(network: Any, folder: Path, run: Callable[..., list[Any]]) -> None:
    network.export(folder / "exported", verbose=False)
    check_network(folder / "exported", network, run, ("output_0", "output_1"))


def test_a_sequential_model(folder: Path, run: Callable[..., list[Any]]) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="scores")])
    model.save(folder / "sequence.keras")
    opened = open_model(folder / "sequence.keras")
    assert opened.graph.outputs == ("scores",)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(run(opened.graph, {opened.inputs[0].name: x})[0], np.asarray(model(x)), rtol=1e-5)


def test_inputs_in_a_dictionary_go_where_they_belong(folder: Path, run: Callable[..., list[Any]]) -> None:
    import keras

    right, left = keras.Input((2,), name="right"), keras.Input((2,), name="left")
    out = keras.layers.Subtract(name="difference")([right, left])
    keras.Model({"right": right, "left": left}, {"out": out}).save(folder / "inputs.keras")
    opened = open_model(folder / "inputs.keras")
    assert {spec.name for spec in opened.inputs} == {"left", "right"}
    fed = {"right": np.full((1, 2), 5.0), "left": np.full((1, 2), 2.0)}
    np.testing.assert_array_equal(run(opened.graph, fed)[0], [[3.0, 3.0]])


def save_module(folder: Path, names: list[str]) -> Path:
    """A SavedModel with control flow and a signature (the same) under each name."""
    import tensorflow as tf

    inputs = [tf.TensorSpec([None, 2], name="zeta"), tf.TensorSpec([None, 1], name="alpha")]

    class Module(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        def __init__(self) -> None:
            self.weight = tf.Variable([[1.0], [2.0]])

        @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
        def call(self, zeta: Any, alpha: Any) -> dict[str, Any]:
            product = zeta @ self.weight
            low = tf.cond(tf.reduce_sum(alpha) > 0.0, lambda: alpha * self.weight[1], lambda: alpha)
            return {"second one": product, "first": low}

    module = Module()
    path = folder / ("module_" + "_".join(names))
    tf.saved_model.save(module, str(path), signatures=dict.fromkeys(names, module.call))
    return path


@pytest.mark.parametrize("names", [["only"], ["other", "serving_default"]])
def test_a_saved_model_is_called_as_in_its_signature(
    folder: Path, run: Callable[..., list[Any]], names: list[str]
) -> None:
    model = open_model(save_module(folder, names))
    specs = {spec.name: spec.shape for spec in model.inputs}
    assert specs == {"zeta": (None, 2), "alpha": (None, 1)}
    assert model.graph.outputs == ("first", "second_one")
    low, product = run(model.graph, {"zeta": [[3.0, 4.0]], "alpha": [[5.0]]})
    assert (low.item(), product.item()) == (10.0, 11.0)
    assert run(model.graph, {"zeta": [[3.0, 4.0]], "alpha": [[-5.0]]})[0].item() == -5.0


def test_a_saved_model_with_the_slots_of_an_optimizer(folder: Path, run: Callable[..., list[Any]]) -> None:
    """As Keras 2 saved them; TensorFlow refuses them where it does not know the optimizer."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    path = save_module(folder, ["slots"])
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    nodes = saved.meta_graphs[0].object_graph_def.nodes
    (weight,) = (number for number, node in enumerate(nodes) if node.WhichOneof("kind") == "variable")
    slot = len(nodes)
    nodes.add().CopyFrom(nodes[weight])
    nodes[0].slot_variables.add(original_variable_node_id=weight, slot_name="m", slot_variable_node_id=slot)
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(path))
    assert run(open_model(path).graph, {"zeta": [[3.0, 4.0]], "alpha": [[5.0]]})[1].item() == 11.0


def test_a_saved_model_without_a_clear_signature_is_refused(folder: Path) -> None:
    with pytest.raises(
        ModelError, match="has signatures one, two, and none is 'serving_default'; choose one: --signature one"
    ):
        load(save_module(folder, ["two", "one"]))
    with pytest.raises(ModelError, match="has no signature"):
        load(save_module(folder, []))


def test_a_saved_model_of_tensorflow_1(folder: Path, run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    v1, path = tf.compat.v1, folder / "old"
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        weight = v1.get_variable("w", initializer=[[1.0], [2.0]], use_resource=False)
        bias = v1.get_variable("b", initializer=[10.0], use_resource=True)
        y = tf.nn.bias_add(tf.matmul(x, weight), bias, name="y")
        session.run(v1.global_variables_initializer())
        signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
        signature.inputs["image"].CopyFrom(meta_graph_pb2.TensorInfo(name=x.name, dtype=1))
        signature.outputs["score"].CopyFrom(meta_graph_pb2.TensorInfo(name=y.name, dtype=1))
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    model = open_model(path)
    assert model.inputs == (InputSpec("image", FLOAT, (None, 2)),)
    assert model.graph.outputs == ("score",)
    np.testing.assert_allclose(run(model.graph, {"image": [[3.0, 4.0]]})[0], [[21.0]])


def frozen_bytes(build: Callable[..., Any]) -> bytes:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        tf.nn.relu(tf.matmul(x, np.arange(12, dtype=np.float32).reshape(4, 3)), name="y")

    return bytes(build(write).to_graph_def().SerializeToString())


def test_a_frozen_graph(build: Callable[..., Graph], run: Callable[..., list[Any]], tmp_path: Path) -> None:
    path = tmp_path / "net.v2.pb"
    path.write_bytes(frozen_bytes(build))
    model = open_model(str(path))
    assert (model.name, model.graph.outputs) == ("net.v2", ("y",))
    np.testing.assert_array_equal(run(model.graph, {"x": np.ones((1, 4))})[0], [[18.0, 22.0, 26.0]])
    assert open_model(path, inputs=["x:0"], outputs=["MatMul:0"]).graph.outputs == ("MatMul",)


def test_a_keep_probability_that_only_dropout_read_is_no_input_any_more(
    build: Callable[..., Graph], tmp_path: Path
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        keep = tf.compat.v1.placeholder(tf.float32, name="keep")
        tf.nn.relu(tf.compat.v1.nn.dropout(x, rate=1 - keep), name="y")

    path = tmp_path / "net.pb"
    path.write_bytes(build(write).to_graph_def().SerializeToString())
    for model in (open_model(path), open_model(path, inputs=["x"])):
        assert [spec.name for spec in model.inputs] == ["x"]
        assert set(model.graph.nodes) == {"x", "y"}


def test_a_custom_operator_is_named_and_one_that_nobody_needs_does_no_harm(
    build: Callable[..., Graph], tmp_path: Path
) -> None:
    import tensorflow as tf

    graph_def = build(lambda: tf.nn.relu(tf.compat.v1.placeholder(tf.float32, [2], name="x"), name="y")).to_graph_def()
    graph_def.node.add(name="mine", op="MyOwnOperator", input=["y"])
    path = tmp_path / "custom.pb"
    path.write_bytes(graph_def.SerializeToString())
    with pytest.raises(ModelError, match="mine: TensorFlow has no operator 'MyOwnOperator'"):
        open_model(path)
    assert open_model(path, outputs=["y"]).graph.outputs == ("y",)


def test_bytes_that_are_no_graph_are_refused(build: Callable[..., Graph], tmp_path: Path) -> None:
    whole = frozen_bytes(build)
    path = tmp_path / "bad.pb"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="holds no graph: it has no nodes; is the file whole"):
        load(path)
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(1, len(whole) - 8, 7)] + [rng.bytes(n) for n in (10, 200, 5000)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ModelError):
            open_model(path, outputs=["y"])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damaged_keras_files_are_refused(network: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    network.save(path)
    whole = path.read_bytes()
    for data in (b"", b"garbage" * 99, whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="whole"):
            load(path)


def test_a_keras_file_with_a_missing_part_is_refused(network: Any, tmp_path: Path) -> None:
    import zipfile

    network.save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as whole, zipfile.ZipFile(tmp_path / "part.keras", "w") as part:
        part.writestr("metadata.json", whole.read("metadata.json"))
    with pytest.raises(ModelError, match="Keras cannot load it"):
        load(tmp_path / "part.keras")


def test_layers_of_ones_own_are_refused_with_the_way_out(tmp_path: Path) -> None:
    import keras

    class Mine(keras.layers.Layer):  # type: ignore[misc]  # TensorFlow ships no types
        def call(self, x: Any) -> Any:
            return x

    keras.Sequential([keras.Input((4,)), Mine()]).save(tmp_path / "mine.keras")
    with pytest.raises(ModelError, match=r"locate class 'Mine'.*export it as a SavedModel"):
        load(tmp_path / "mine.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)]).save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="export it as a SavedModel"):
        load(tmp_path / "lambda.keras")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pb", "there is no such file; a frozen .pb"),
        ("notes.onnx", "cannot open a '.onnx' file; a frozen .pb"),
        ("empty", "is a folder without saved_model.pb; is it the folder of a SavedModel"),
        ("damaged", "is damaged; export the model again"),
        ("hollow", "holds no graph"),
        ("hollow/saved_model.pb", "is the graph of a SavedModel; give its folder"),
    ],
)
def test_files_that_are_no_model_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.onnx").write_text("x")
    for folder, content in (("empty", None), ("damaged", b"\xff\xff\xff"), ("hollow", b"")):
        (tmp_path / folder).mkdir()
        if content is not None:
            (tmp_path / folder / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load(tmp_path / name)


def test_a_saved_model_that_lost_its_variables_is_refused(folder: Path) -> None:
    path = save_module(folder, ["serving_default"])
    for part in (path / "variables").iterdir():
        part.unlink()
    with pytest.raises(ModelError, match="TensorFlow cannot load it"):
        load(path)


def test_the_digest_changes_with_any_byte(build: Callable[..., Graph], tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.pb"
    path.write_bytes(b"abc")
    # Of FIPS 180-2: the digest of "abc".
    assert model_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    saved = save_module(folder, ["digest"])
    before = model_digest(saved)
    assert model_digest(saved) == before
    (saved / "fingerprint.pb").write_bytes(b"is not a part of the model")
    assert model_digest(saved) == before
    data = next((saved / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert model_digest(saved) != before
