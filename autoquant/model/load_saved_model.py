"""Reading a SavedModel folder, of TensorFlow 2 or of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from autoquant.errors import ModelError
from autoquant.model.frozen import from_frozen, frozen_function
from autoquant.model.graph import Graph
from autoquant.model.names import node_of

SERVING = "serving_default"
INTERNAL = "__saved_model_init_op"


def load_saved_model(path: Path) -> Graph:
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
            return _load_functions(path, key)
        return _load_session(path, list(meta.meta_info_def.tags), meta.signature_def[key])
    except ModelError:
        raise
    except Exception as error:  # whatever TensorFlow's loaders and kernels raise, it is the file that is at fault
        raise ModelError(str(path), f"TensorFlow cannot load it: {_brief(error)}", hint="export it again") from error


def _signature_key(path: Path, signatures: Mapping[str, Any]) -> str:
    keys = [key for key in signatures if key != INTERNAL]
    if SERVING in keys:
        return SERVING
    if len(keys) != 1:
        what = f"has signatures {', '.join(sorted(keys))} and none is '{SERVING}'" if keys else "has no signature"
        raise ModelError(str(path), what, hint=f"save it with signatures={{'{SERVING}': ...}}")
    return keys[0]


def _load_functions(path: Path, key: str) -> Graph:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # to be kept: its variables die with it
    function = loaded.signatures[key]
    inputs = list(function.structured_input_signature[1])
    frozen = frozen_function(function)
    fed = [tensor.op.name for tensor in frozen.inputs if tensor.dtype != tf.resource]  # those are tables
    names = dict(zip(fed, sorted(inputs), strict=True))  # arguments by name come sorted, as the outputs do
    outputs = zip((t.name for t in frozen.outputs), sorted(function.structured_outputs), strict=True)
    return from_frozen(frozen.graph.as_graph_def(), inputs=names, outputs=list(outputs))


def _load_session(path: Path, tags: list[str], signature: Any) -> Graph:
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
    return from_frozen(graph_def, inputs=names, outputs=outputs)


def _brief(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
