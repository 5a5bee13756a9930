"""Placeholders that are fed: constants of the graph, called as users know them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import UsageError
from autoquant.model.open import open_model

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """X / keep_prob * (scale + 1), with a dropout that is not written as tf.nn.dropout does it."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x, keep = v1.placeholder(tf.float32, (None, 4), name="x"), v1.placeholder(tf.float32, name="keep_prob")
        scale = v1.placeholder_with_default(2, (), name="scale")
        mask = tf.sign(keep - tf.random.uniform(tf.shape(x)))
        tf.multiply(tf.nn.relu(mask) * x / keep, tf.cast(scale + 1, tf.float32), name="y")
    path = tmp_path_factory.mktemp("fed") / "m.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.parametrize(("feed", "factor"), [({"keep_prob": 1.0}, 3), (["keep_prob:0=1", "scale=4"], 5)])
def test_values_are_constants(feed: Any, factor: int, frozen: Path, run: Callable[..., list[Any]]) -> None:
    model = open_model(frozen, feed=feed)
    assert [spec.name for spec in model.inputs] == ["x"]
    np.testing.assert_allclose(run(model.graph, {"x": X})[0], factor * X, rtol=1e-6)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"keep_porb": 1.0}, "--feed keep_porb: there is no such placeholder in the model; did you mean 'keep_prob'"),
        ({"qq": 1.0}, "--feed qq: there is no such placeholder in the model; its placeholders: x, keep_prob, scale"),
        ({"y": 1.0}, "--feed y: is a Mul, not a placeholder"),
        ({"x": 1.0}, "--feed x: is of shape [?]x4, not a single value; samples are given by the data"),
        ({"scale": 0.5}, "--feed scale: cannot read '0.5' as int32; give a whole number"),
    ],
)
def test_a_feed_that_does_not_fit(feed: Any, message: str, frozen: Path) -> None:
    with pytest.raises(UsageError, match=message):
        open_model(frozen, feed=feed)


def test_a_tflite_has_no_placeholders(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").touch()
    with pytest.raises(UsageError, match=r"--feed: is for files of TensorFlow, not for a \.tflite; leave it out"):
        open_model(tmp_path / "m.tflite", feed={"a": 1})


def saved_session(folder: Path) -> None:
    """A SavedModel of TensorFlow 1 whose signature calls the switch by another name, and has one with a default."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x, training = v1.placeholder(tf.float32, (None, 4), name="x"), v1.placeholder(tf.bool, (), name="inner")
        other = v1.placeholder_with_default(True, (), name="other")
        y = v1.cond(training, lambda: x - 1, lambda: v1.cond(other, lambda: 2 * x, lambda: x))
        v1.saved_model.simple_save(session, str(folder), {"image": x, "train": training, "other": other}, {"out": y})


def saved_function(folder: Path) -> None:
    """One of TensorFlow 2, with a variable that the training branch assigns."""
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(2.0)

    def call(image: Any, train: Any) -> Any:
        def trained() -> Any:
            module.factor.assign_sub(0.1)
            return image - 1

        return {"out": tf.cond(train, trained, lambda: module.factor * image)}

    specs = tf.TensorSpec((None, 4), name="image"), tf.TensorSpec((), tf.bool, name="train")
    module.call = tf.function(call)
    tf.saved_model.save(module, str(folder), signatures=module.call.get_concrete_function(*specs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("save", [saved_session, saved_function])
def test_inputs_of_a_signature_have_its_names(
    save: Callable[[Path], None], tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    save(tmp_path / "m")
    model = open_model(tmp_path / "m", feed={"train": False})
    assert [spec.name for spec in model.inputs] == ["image"]
    np.testing.assert_allclose(run(model.graph, {"image": X})[0], 2 * X)
    with pytest.raises(UsageError, match="--feed trian: there is no such placeholder in the model; did you mean 'trai"):
        open_model(tmp_path / "m", feed={"trian": False})
