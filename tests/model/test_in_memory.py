"""Models in memory become files that compute the same, which any process can open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import autoquant
from autoquant.errors import ModelError
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.model.in_memory import is_in_memory, model_file, save_model_file
from autoquant.model.open import open_model

X = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype(np.float32)
V = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


class Halves(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    def call(self, x: Any) -> Any:
        return x / 2


class Subclassed(keras.Model):  # type: ignore[misc]  # Keras has no types
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = keras.layers.Conv2D(3, 3), keras.layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(keras.ops.mean(self.conv(x), axis=(1, 2)))


class Scores(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.w = tf.Variable(tf.reshape(tf.range(12.0), (4, 3)))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        return {"scores": x @ self.w}


def sequential(*more: Any, name: str = "net") -> Any:
    layers = [keras.Input((6, 6, 2), name="image"), keras.layers.Conv2D(3, 3, activation="relu"), *more]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(2, name="out")], name=name)


def two_inputs() -> Any:
    image, vector = keras.Input((6, 6, 2), name="b_image"), keras.Input((4,), name="a_vector")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(keras.layers.Conv2D(3, 3)(image)), vector])
    outputs = [keras.layers.Dense(2, name="z")(joined), keras.layers.Dense(3, name="a")(joined)]
    return keras.Model([image, vector], outputs, name="two_inputs")


def subclassed() -> Any:
    model = Subclassed()
    model(X)
    return model


def computed(path: Path, feeds: Mapping[str, Any] | None = None, **more: Any) -> list[Any]:
    """What the opened file gives, output by output; with one input its name does not matter."""
    model = open_model(path)
    fed = {model.inputs[0].name: X} if feeds is None else feeds
    return list(TensorFlowEngine().open_graph(model.program)(fed).values())


@pytest.mark.parametrize(
    ("make", "file"),
    [
        (sequential, "net.keras"),
        (lambda: sequential(name="my.net-2"), "my.net-2.keras"),
        (lambda: sequential(keras.layers.Lambda(lambda x: x + 1)), "net"),
        (lambda: sequential(Halves()), "net"),
        (subclassed, "subclassed"),
    ],
)
def test_models_of_keras(make: Callable[[], Any], file: str, tmp_path: Path) -> None:
    model = make()
    path = save_model_file(model, tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == [file]
    (outputs,) = computed(path)
    np.testing.assert_allclose(outputs, model(X), rtol=1e-5, atol=1e-5)


def test_names_of_inputs_and_outputs_of_a_model_of_keras(tmp_path: Path) -> None:
    model = two_inputs()
    opened = open_model(save_model_file(model, tmp_path))
    assert [spec.name for spec in opened.inputs] == ["b_image", "a_vector"]
    assert opened.program.outputs == ("z", "a")
    runner = TensorFlowEngine().open_graph(opened.program)
    for found, wanted in zip(runner({"b_image": X, "a_vector": V}).values(), model([X, V]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_another_process_opens_a_model_with_classes_of_the_users(tmp_path: Path) -> None:
    """Also those that are registered here: there they are not."""
    keras.saving.register_keras_serializable("mine")(Halves)
    path = save_model_file(sequential(Halves()), tmp_path)
    code = f"from autoquant.model.open import open_model; print(len(open_model({str(path)!r}).program.nodes) > 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_modules_and_functions_of_tensorflow(tmp_path: Path) -> None:
    module = Scores()
    wanted = V @ np.arange(12, dtype=np.float32).reshape(4, 3)
    function = tf.function(lambda x: x @ module.w, input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    concrete = tf.function(lambda x: x @ module.w).get_concrete_function(tf.TensorSpec((None, 4), tf.float32, name="x"))
    tf.saved_model.save(module, str(tmp_path / "saved"))
    models = {
        "scores": module,
        "function": function,
        "concrete": concrete,
        "model": tf.saved_model.load(tmp_path / "saved"),
    }
    for name, model in models.items():
        (tmp_path / name).mkdir()
        path = save_model_file(model, tmp_path / name)
        (outputs,) = computed(path, {open_model(path).inputs[0].name: V})
        np.testing.assert_allclose(outputs, wanted, rtol=1e-6)
        assert path.is_dir()
    assert (tmp_path / "scores" / "scores").is_dir() and (tmp_path / "model" / "model").is_dir()
    assert open_model(tmp_path / "scores" / "scores").program.outputs == ("scores",)


class Several(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    @tf.function  # type: ignore[untyped-decorator]
    def one(self, x: Any) -> Any:
        return x

    @tf.function  # type: ignore[untyped-decorator]
    def other(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: keras.Sequential([keras.layers.Dense(2)]),
            "was never built, so that its inputs are not known; call it",
        ),
        (Subclassed, "was never built"),
        (tf.Module, "module: has no tf.function; give the one that is the model: function.get_concrete_function"),
        (Several, "several: has several functions (one, other)"),
        (lambda: tf.function(lambda x: x), "has no input_signature, so that its inputs are not known"),
        (lambda: 3, "model: is no model: it is of Python's type int; give a Keras model, a tf.Module"),
        (lambda: None, "is no model: it is of Python's type NoneType"),
    ],
)
def test_what_cannot_be_saved(make: Callable[[], Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        save_model_file(make(), tmp_path)
    assert told in str(caught.value)
    with pytest.raises(ModelError):
        autoquant.inspect(make())


def test_a_function_whose_table_nobody_holds(tmp_path: Path) -> None:
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1]), 0)
    concrete = tf.function(table.lookup).get_concrete_function(tf.TensorSpec((None,), tf.string))
    with pytest.raises(ModelError, match=r"TensorFlow cannot save it: .*; give the tf\.Module that holds what"):
        save_model_file(concrete, tmp_path)


def test_a_path_is_its_own_file_and_what_was_saved_goes() -> None:
    with model_file("model.pb") as path:
        assert path == Path("model.pb")
    with model_file(sequential()) as path:
        assert path.is_file()
    assert not path.parent.exists()
    assert is_in_memory(sequential()) and not is_in_memory(Path("model.pb"))
