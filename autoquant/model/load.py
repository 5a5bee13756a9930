"""Reads files of TensorFlow as frozen graphs with named inputs and outputs: frozen .pb, SavedModel, Keras 2 and 3."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from autoquant.errors import AutoquantError, ModelError
from autoquant.messages import reason
from autoquant.model.feed import Feed, feed_texts, feed_values
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.inference import inference_graph
from autoquant.model.interface import find_inputs, rename_interface
from autoquant.model.model import EXPECTED, KERAS, check_file
from autoquant.model.operators import node_of

WHOLE = "is the file whole?"
SERVING = "serving_default"
INTERNAL = "__saved_model_init_op"
LONGEST = 300
"""Characters of what TensorFlow or Keras say that are shown."""


def load(path: Path, feed: Feed = ()) -> Graph:
    """The frozen graph of a model file; outputs are empty where the file names none. Raises ModelError.

    `feed` gives values to placeholders that are no data, such as is_training. Raises UsageError where it does not fit.
    """
    values = feed_values(feed_texts(feed))
    check_file(path)
    loader = load_saved_model if path.is_dir() else load_keras if path.suffix.lower() in KERAS else load_frozen
    try:
        return loader(path, values)
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=EXPECTED) from error


def load_frozen(path: Path, feed: Mapping[str, str]) -> Graph:
    """A frozen GraphDef in binary form."""
    if path.name == "saved_model.pb":
        raise ModelError(str(path), "is the graph of a SavedModel", hint=f"give its folder: {path.parent}")
    graph_def = GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError(str(path), "is not a GraphDef, or is incomplete", hint=WHOLE) from error
    if not any(node.op for node in graph_def.node):
        raise ModelError(str(path), "holds no graph: it has no nodes", hint=WHOLE)
    graph = inference_graph(graph_def, feed=feed)
    return replace(graph, inputs=find_inputs(graph))


def load_saved_model(path: Path, feed: Mapping[str, str]) -> Graph:
    """The signature 'serving_default', else the only one. Inputs and outputs are called as in the signature."""
    file = path / "saved_model.pb"
    if not file.is_file():
        raise ModelError(str(path), "is a folder without saved_model.pb", hint="is it the folder of a SavedModel?")
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ModelError(str(file), "is damaged", hint="export the model again") from error
    if not saved.meta_graphs:
        raise ModelError(str(file), "holds no graph", hint="export the model again")
    meta = next((m for m in saved.meta_graphs if "serve" in m.meta_info_def.tags), saved.meta_graphs[0])
    key = _signature_key(path, meta.signature_def)
    try:
        if meta.HasField("object_graph_def"):
            with _without_slots(path, saved) as folder:
                return _load_functions(folder, key, feed)
        return _load_session(path, list(meta.meta_info_def.tags), meta.signature_def[key], feed)
    except AutoquantError:
        raise
    except Exception as error:  # whatever TensorFlow's loaders and kernels raise, it is the file that is at fault
        raise ModelError(
            str(path), f"TensorFlow cannot load it: {reason(error)[:LONGEST]}", hint="export it again"
        ) from error


@contextmanager
def _without_slots(path: Path, saved: Any) -> Iterator[Path]:
    """The folder of a SavedModel, or of a copy without the slots of an optimizer, which inference has no need of.

    TensorFlow refuses the slots of an optimizer that it does not know any more.
    """
    nodes = [node for meta in saved.meta_graphs for node in meta.object_graph_def.nodes if node.slot_variables]
    if not nodes:
        yield path
        return
    for node in nodes:
        node.ClearField("slot_variables")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in path.iterdir():
            if part.name != "saved_model.pb":
                (folder / part.name).symlink_to(part.resolve(), target_is_directory=part.is_dir())
        (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
        yield folder


def _signature_key(path: Path, signatures: Mapping[str, Any]) -> str:
    keys = [key for key in signatures if key != INTERNAL]
    if SERVING in keys:
        return SERVING
    if len(keys) != 1:
        what = f"has signatures {', '.join(sorted(keys))} and none is '{SERVING}'" if keys else "has no signature"
        raise ModelError(str(path), what, hint=f"save it with signatures={{'{SERVING}': ...}}")
    return keys[0]


def _load_functions(path: Path, key: str, feed: Mapping[str, str]) -> Graph:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # to be kept: its variables die with it
    function = loaded.signatures[key]
    inputs = list(function.structured_input_signature[1])
    frozen = _frozen(function)
    fed = [tensor.op.name for tensor in frozen.inputs if tensor.dtype != tf.resource]  # those are tables
    names = dict(zip(fed, sorted(inputs), strict=True))  # arguments by name come sorted, as the outputs do
    outputs = zip((t.name for t in frozen.outputs), sorted(function.structured_outputs), strict=True)
    return _named(frozen.graph.as_graph_def(), inputs=names, outputs=list(outputs), feed=feed)


def _load_session(path: Path, tags: list[str], signature: Any, feed: Mapping[str, str]) -> Graph:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph
    from tensorflow.python.util import deprecation

    outputs = [(signature.outputs[key].name, key) for key in sorted(signature.outputs)]
    with deprecation.silence(), tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, tags, str(path))
        graph_def = convert_variables_to_constants_from_session_graph(
            session, session.graph.as_graph_def(), [node_of(name) for name, _ in outputs]
        )
    names = {node_of(signature.inputs[key].name): key for key in sorted(signature.inputs)}
    return _named(graph_def, inputs=names, outputs=outputs, feed=feed)


def load_keras(path: Path, feed: Mapping[str, str]) -> Graph:
    """The model in inference mode. Inputs are called as its inputs, outputs as the layers that make them."""
    model = _keras_model(path)
    try:
        inputs = list(model.inputs)
    except (AttributeError, ValueError) as error:
        what = "its inputs are not known: it is a subclassed model, or was never built"
        raise ModelError(str(path), what, hint="export it as a SavedModel: model.export(folder)") from error
    try:
        frozen = _frozen(_traced(model, inputs))
    except Exception as error:  # Keras and TensorFlow raise anything here, and the model is at fault
        what = f"cannot be traced: {reason(error)[:LONGEST]}"
        raise ModelError(str(path), what, hint="export it as a SavedModel") from error
    names = [getattr(t, "name", "") or f"input_{i}" for i, t in enumerate(inputs)]
    makers = list(getattr(model, "output_names", ())) or [model.layers[-1].name]  # a Sequential has one
    return _named(
        frozen.graph.as_graph_def(),
        inputs={tensor.op.name: name for tensor, name in zip(frozen.inputs, names, strict=True)},
        outputs=[(tensor.name, name) for tensor, name in zip(frozen.outputs, makers, strict=True)],
        feed=feed,
    )


def _keras_model(path: Path) -> Any:
    import keras

    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(str(path), "is not a Keras file, or is incomplete", hint=WHOLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old files and optimizers: nothing that a user could act on
            return keras.models.load_model(path, compile=False, custom_objects=_keras_2_layers())
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


def _frozen(function: Any) -> Any:
    """The concrete function with its variables as constants and its calls inlined."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # A Graph does not keep the control edges that lowered control flow needs: If and While stay functions.
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def _named(
    graph_def: Any, *, inputs: Mapping[str, str], outputs: list[tuple[str, str]], feed: Mapping[str, str]
) -> Graph:
    """A Graph of what the outputs need; `inputs` maps node -> name, `outputs` holds (tensor, name)."""
    graph = inference_graph(graph_def, inputs=inputs, outputs=[tensor for tensor, _ in outputs], feed=feed)
    return rename_interface(graph, inputs={name: inputs[name] for name in graph.inputs}, outputs=outputs)
