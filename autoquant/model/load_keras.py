"""Reading Keras files: .keras, and .h5 as Keras 3 and Keras 2 write it."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

from autoquant.errors import ModelError
from autoquant.model.frozen import from_frozen, frozen_function
from autoquant.model.graph import Graph


def load_keras(path: Path) -> Graph:
    """The model in inference mode. Inputs are called as its inputs, outputs as the layers that make them."""
    model = _loaded(path)
    try:
        inputs = list(model.inputs)
    except (AttributeError, ValueError) as error:
        what = "its inputs are not known: it is a subclassed model, or was never built"
        raise ModelError(str(path), what, hint="export it as a SavedModel: model.export(folder)") from error
    try:
        frozen = frozen_function(_traced(model, inputs))
    except Exception as error:  # Keras and TensorFlow raise anything here, and the model is at fault
        raise ModelError(str(path), f"cannot be traced: {_brief(error)}", hint="export it as a SavedModel") from error
    names = [getattr(t, "name", "") or f"input_{i}" for i, t in enumerate(inputs)]
    makers = list(getattr(model, "output_names", ())) or [model.layers[-1].name]  # a Sequential has one
    return from_frozen(
        frozen.graph.as_graph_def(),
        inputs={tensor.op.name: name for tensor, name in zip(frozen.inputs, names, strict=True)},
        outputs=[(tensor.name, name) for tensor, name in zip(frozen.outputs, makers, strict=True)],
    )


def _loaded(path: Path) -> Any:
    import keras

    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(str(path), "is not a Keras file, or is incomplete", hint="is the file whole?")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old files and optimizers: nothing that a user could act on
            return keras.models.load_model(path, compile=False, custom_objects=_keras_2_layers())
    except Exception as error:  # Keras raises anything from KeyError to BadZipFile for a damaged file
        own_code = any(word in str(error) for word in ("Could not locate", "Unknown layer", "Lambda", "lambda"))
        hint = "export it as a SavedModel instead: model.export(folder)" if own_code else "is the file whole?"
        raise ModelError(str(path), f"Keras cannot load it: {_brief(error)}", hint=hint) from error


def _keras_2_layers() -> dict[str, Any]:
    """Layers whose Keras 2 configuration has keys that Keras 3 refuses, though they say nothing."""
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]  # Keras has no types
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            return super().from_config({key: value for key, value in config.items() if key != "groups"})

    return {"DepthwiseConv2D": DepthwiseConv2D}


def _traced(model: Any, inputs: list[Any]) -> Any:
    import keras
    import tensorflow as tf

    single = isinstance(model, keras.Sequential)  # one input, and no structure that holds it

    def call(*tensors: Any) -> Any:
        fed = tensors[0] if single else keras.tree.pack_sequence_as(model.input, list(tensors))
        return keras.tree.flatten(model(fed, training=False))

    specs = [tf.TensorSpec(tuple(tensor.shape), tensor.dtype) for tensor in inputs]
    return tf.function(call).get_concrete_function(*specs)


def _brief(error: Exception) -> str:
    """What Keras says at the bottom of its long explanations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Exception encountered:")] or lines[-1:]
    return (told[-1].removeprefix("Exception encountered:").strip() if told else type(error).__name__)[:300]
