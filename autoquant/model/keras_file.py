"""Files of Keras 2 and 3, as frozen graphs in inference mode."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoquant.errors import ModelError
from autoquant.messages import reason
from autoquant.model.freezing import LONGEST, freeze, named_graph
from autoquant.model.graph import Graph
from autoquant.model.hdf5 import check_hdf5
from autoquant.model.model import WHOLE
from autoquant.model.trust import check_graph


def load_keras(path: Path, feed: Mapping[str, str], *, trust: bool = False) -> Graph:
    """The model in inference mode. Inputs are called as its inputs, outputs as the layers that make them.

    Unless there is `trust`, a model that brings code of its own, or may do more than compute, is refused (trust.py).
    """
    model = _keras_model(path, trust)
    try:
        inputs = list(model.inputs)
    except (AttributeError, ValueError) as error:
        what = "its inputs are not known: it is a subclassed model, or was never built"
        raise ModelError(str(path), what, hint="export it as a SavedModel: model.export(folder)") from error
    try:
        frozen = freeze(_traced(model, inputs))
    except Exception as error:  # Keras and TensorFlow raise anything here, and the model is at fault
        what = f"cannot be traced: {reason(error)[:LONGEST]}"
        raise ModelError(str(path), what, hint="export it as a SavedModel") from error
    if not trust:
        check_graph(str(path), frozen.graph_def)
    names = [getattr(t, "name", "") or f"input_{i}" for i, t in enumerate(inputs)]
    makers = list(getattr(model, "output_names", ())) or [model.layers[-1].name]  # a Sequential has one
    return named_graph(
        frozen.graph_def,
        inputs=dict(zip(frozen.inputs, names, strict=True)),
        outputs=list(zip(frozen.outputs, makers, strict=True)),
        tables=frozen.tables,
        feed=feed,
        large=frozen.large,
    )


def _keras_model(path: Path, trust: bool) -> Any:
    import keras

    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(str(path), "is not a Keras file, or is incomplete", hint=WHOLE)
    if path.suffix.lower() != ".keras":
        check_hdf5(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old files and optimizers: nothing that a user could act on
            return keras.models.load_model(path, compile=False, safe_mode=not trust, custom_objects=_keras_2_layers())
    except Exception as error:  # Keras raises anything from KeyError to BadZipFile for a damaged file
        own_code = any(word in str(error) for word in ("Could not locate", "Unknown layer", "Lambda", "lambda"))
        hint = "export it as a SavedModel instead: model.export(folder)" if own_code else WHOLE
        raise ModelError(str(path), f"Keras cannot load it: {reason(error)[:LONGEST]}", hint=hint) from error


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
