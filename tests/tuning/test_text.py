"""Models with text, lookups and encoded images in front, from file to certificate, run again without our code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from networks import without_warnings_of_keras

import autoquant
from autoquant.errors import ModelError
from autoquant.tuning.result import SearchResult

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RNG = np.random.default_rng(3)
WORDS = ("red", "green", "blue", "dark", "pale", "sky", "sea", "sun")
SAMPLES = 240


class Case(NamedTuple):
    """A model file, its data by input, the FP32 outputs for them, and their name."""

    model: Path
    data: Mapping[str, Any]
    outputs: Any
    output: str


def sentences(count: int) -> Any:
    chosen = (RNG.choice([*WORDS, "unknown", "Red!"], RNG.integers(0, 9)) for _ in range(count))
    return np.array([f"{number} " + " ".join(words) for number, words in enumerate(chosen)])


def text_network(folder: Path) -> Case:
    """TextVectorization, Embedding and convolution, as a .keras file."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    words = layers.TextVectorization(vocabulary=list(WORDS), output_sequence_length=8)
    text = keras.Input((), dtype="string", name="text")
    t = layers.Embedding(len(WORDS) + 2, 12, embeddings_initializer="random_normal")(words(text))
    t = layers.Reshape((8, 1, 12))(t)
    t = layers.Conv2D(16, (3, 1), activation="relu", name="conv")(t)
    t = layers.Dense(12, activation="relu")(layers.Flatten()(t))
    network = keras.Model(text, layers.Dense(3, name="scores")(t))
    network.save(folder / "text.keras")
    return _case(network, folder / "text.keras", {"text": sentences(SAMPLES)}, "scores")


def table_network(folder: Path) -> Case:
    """Every other layer that Keras has for features of a table, as a SavedModel."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    word, code, name, tags, age, size = (
        keras.Input(shape, dtype=kind, name=key)
        for key, shape, kind in (
            ("word", (1,), "string"),
            ("code", (2,), "int64"),
            ("name", (1,), "string"),
            ("tags", (3,), "int64"),
            ("age", (1,), "float32"),
            ("size", (2,), "float32"),
        )
    )
    features = [
        layers.StringLookup(vocabulary=list(WORDS), output_mode="one_hot", num_oov_indices=2)(word),
        layers.Flatten()(
            layers.Embedding(6, 4, embeddings_initializer="random_normal")(
                layers.IntegerLookup(vocabulary=[10, -3, 2**40, 77, 5])(code)
            )
        ),
        layers.Flatten()(
            layers.Embedding(9, 4, embeddings_initializer="random_normal")(layers.Hashing(num_bins=9, salt=5)(name))
        ),
        layers.CategoryEncoding(num_tokens=6, output_mode="multi_hot")(tags),
        layers.Flatten()(
            layers.Embedding(4, 3, embeddings_initializer="random_normal")(
                layers.Discretization(bin_boundaries=[20.0, 40.0, 60.0])(age)
            )
        ),
        layers.Normalization(mean=[3.0, -1.0], variance=[4.0, 0.5])(size),
    ]
    t = layers.Dense(24, activation="relu", name="dense")(layers.Concatenate()(features))
    inputs = [word, code, name, tags, age, size]
    network = keras.Model({one.name: one for one in inputs}, layers.Dense(3, name="scores")(t))
    network.export(folder / "table", verbose=False)
    data = {
        "word": RNG.choice([*WORDS, "other", "words"], (SAMPLES, 1)),
        "code": RNG.choice([10, -3, 2**40, 77, 5, 6], (SAMPLES, 2)),
        "name": sentences(SAMPLES)[:, None],
        "tags": RNG.integers(0, 6, (SAMPLES, 3)),
        "age": RNG.uniform(0, 90, (SAMPLES, 1)).astype(np.float32),
        "size": RNG.normal(1, 2, (SAMPLES, 2)).astype(np.float32),
    }
    return _case(network, folder / "table", data, "output_0")


def _case(network: Any, path: Path, data: Mapping[str, Any], output: str) -> Case:
    import tensorflow as tf

    fed = {name: tf.constant(values) for name, values in data.items()}
    return Case(path, data, np.asarray(network(fed if len(fed) > 1 else next(iter(fed.values())))), output)


@pytest.fixture(scope="module", params=[text_network, table_network], ids=["text", "table"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with without_warnings_of_keras():
        return request.param(tmp_path_factory.mktemp("models"))


def run_found(result: SearchResult, data: Mapping[str, Any], output: str) -> Any:
    """The outputs of the best model by a plain session or interpreter, with what is in front of it."""
    assert result.model is not None
    fed = {name: np.asarray(values) for name, values in data.items()}
    if result.model.suffix == ".pb":
        return run_session(result.model, [output], fed)[0]
    assert result.front is not None
    interpreter = Interpreter(model_path=str(result.model))
    signature = interpreter.get_signature_runner()
    made = [name for name in signature.get_input_details() if name not in fed]
    fed |= dict(zip(made, run_session(result.front, made, fed), strict=True))
    return signature(**{name: fed[name] for name in signature.get_input_details()})[output]


def run_session(path: Path, outputs: list[str], fed: Mapping[str, Any]) -> list[Any]:
    """Outputs of a .pb in a plain session, for those inputs that it has."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    inputs = [node.name for node in graph_def.node if node.op == "Placeholder"]
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        feeds = {f"{name}:0": fed[name] for name in inputs}
        return list(session.run([f"{name}:0" for name in outputs], feeds))


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_all_layers_become_int8_and_the_files_run_without_us(case: Case, target: str, tmp_path: Path) -> None:
    labels = case.outputs.argmax(axis=1)
    result = autoquant.search(
        case.model,
        {**case.data, "y": labels},
        tolerance=0.3,
        target=target,
        max_trials=1,
        run=tmp_path / "run",
    )
    assert result.best is not None
    assert result.best.int8_share == 1.0
    assert result.certificate is not None
    found = run_found(result, case.data, case.output)
    noise = np.square(found - case.outputs).sum()
    assert 10 * np.log10(np.square(case.outputs).sum() / noise) > 20
    (other,) = {"tensorflow", "litert"} - {target}
    moved = autoquant.export(result.run, tmp_path / "out", target=other, data={**case.data, "y": labels})
    assert moved.transferred is not None
    assert moved.transferred.score > 0.9
    assert (moved.front is not None) == (other == "litert")
    assert result.model is not None
    judged = autoquant.evaluate(case.model, result.model, moved.model, data={**case.data, "y": labels})
    assert judged.models[0].score == 1.0
    assert judged.models[1].score == (found.argmax(axis=1) == labels).mean()
    assert judged.models[2].score > 0.9


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A SavedModel of two signatures, one of images and one of encoded ones, none called serving_default."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("detector")
    first, second = (RNG.normal(0, 0.3, (3, 3, *size)).astype(np.float32) for size in ((3, 8), (8, 8)))
    scores, boxes = (RNG.normal(0, 0.3, (8, size)).astype(np.float32) for size in (3, 4))

    class Detector(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        @tf.function(input_signature=[tf.TensorSpec([None, 12, 12, 3], tf.uint8, "input_tensor")])  # type: ignore[untyped-decorator]
        def images(self, input_tensor: Any) -> dict[str, Any]:
            t = tf.nn.relu(tf.nn.conv2d(tf.cast(input_tensor, tf.float32) / 255.0, first, 2, "SAME"))
            t = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(t, second, 2, "SAME")), axis=(1, 2))
            return {"detection_scores": tf.matmul(t, scores), "detection_boxes": tf.matmul(t, boxes)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])  # type: ignore[untyped-decorator]
        def encoded(self, encoded: Any) -> dict[str, Any]:
            def decoded(one: Any) -> Any:
                return tf.ensure_shape(tf.io.decode_png(one, channels=3), (12, 12, 3))

            return dict(self.images(tf.map_fn(decoded, encoded, fn_output_signature=tf.uint8)))

    module = Detector()
    signatures = {"images": module.images, "encoded_images": module.encoded}
    tf.saved_model.save(module, str(folder / "detector"), signatures=signatures)
    images = RNG.integers(0, 256, (SAMPLES, 12, 12, 3)).astype(np.uint8)
    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    found = module.images(images)["detection_scores"].numpy()
    return Case(folder / "detector", {"input_tensor": images, "encoded": encoded}, found, "detection_scores")


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
@pytest.mark.parametrize(("signature", "name"), [("images", "input_tensor"), ("encoded_images", "encoded")])
def test_a_saved_model_of_two_signatures(
    detector: Case, signature: str, name: str, target: str, tmp_path: Path
) -> None:
    result = autoquant.search(
        detector.model,
        (detector.data[name], detector.outputs.argmax(axis=1)),
        signature=signature,
        metric="top1@output=detection_scores",
        tolerance=0.3,
        target=target,
        max_trials=1,
        run=tmp_path / "run",
    )
    assert result.certificate is not None
    assert tomllib.loads((result.run / "run.toml").read_text())["request"]["signature"] == signature
    assert (result.front is not None) == (target == "litert" and name == "encoded")
    assert result.model is not None
    options: dict[str, Any] = {"signature": signature, "metric": "top1@output=detection_scores"}
    labels = detector.outputs.argmax(axis=1)
    judged = autoquant.evaluate(detector.model, result.model, data=(detector.data[name], labels), **options)
    assert judged.models[0].score == 1.0 and judged.models[1].score > 0.9
    if target == "tensorflow" or result.front is not None:
        found = run_found(result, detector.data, detector.output)
        assert (found.argmax(axis=1) == detector.outputs.argmax(axis=1)).mean() > 0.9


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("", "has signatures encoded_images, images, and none is 'serving_default'; choose one: --signature encoded"),
        ("encoded_image", "has no signature 'encoded_image'; did you mean 'encoded_images'"),
        ("serve", "has no signature 'serve'; it has: encoded_images, images"),
    ],
)
def test_a_signature_that_there_is_not(detector: Case, signature: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        autoquant.inspect(detector.model, signature=signature)


def test_a_benchmark_of_one_of_two_signatures(detector: Case) -> None:
    found = autoquant.benchmark(detector.model, signature="images", repeat=3)
    assert sum(one.operator == "CONV_2D" for one in found.operators) == 2
