"""SavedModels of TensorFlow 1 and 2, as frozen graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from autoquant.errors import AutoquantError, ModelError, did_you_mean
from autoquant.messages import reason
from autoquant.model.freezing import LONGEST, freeze, named_graph
from autoquant.model.graph import Graph
from autoquant.model.operators import node_of
from autoquant.model.tables import session_reader
from autoquant.model.trust import check_constants, check_saved_model

SERVING = "serving_default"
INTERNAL = "__saved_model_init_op"


def load_saved_model(
    path: Path, feed: Mapping[str, str], *, signature: str | None = None, trust: bool = False
) -> Graph:
    """A signature: the one named, 'serving_default', or the only one. Inputs and outputs are called as there.

    Unless there is `trust`, a model that may do more than compute is refused before it runs (trust.py).
    """
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
    key, tags = _signature_key(path, meta.signature_def, signature), list(meta.meta_info_def.tags)
    of_functions = meta.HasField("object_graph_def") and len(saved.meta_graphs) == 1
    for one in saved.meta_graphs:
        check_constants(str(path), one.graph_def)
        if not trust:
            check_saved_model(str(path), one, main=not of_functions)
    try:
        if of_functions:
            with _without_slots(path, saved) as folder:
                return _load_functions(folder, key, feed)
        return _load_session(path, tags, meta.signature_def[key], feed)
    except AutoquantError:
        raise
    except Exception as error:  # whatever TensorFlow's loaders and kernels raise, it is the file that is at fault
        what = f"TensorFlow cannot load it: {reason(error)[:LONGEST]}"
        raise ModelError(str(path), what, hint="export it again") from error


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


def _signature_key(path: Path, signatures: Mapping[str, Any], wanted: str | None) -> str:
    keys = sorted(key for key in signatures if key != INTERNAL)
    if wanted is not None:
        if wanted not in keys:
            listed = f"it has: {', '.join(keys)}" if keys else "it has none"
            hint = did_you_mean(wanted, keys, otherwise=listed)
            raise ModelError(str(path), f"has no signature '{wanted}'", hint=hint)
        return wanted
    if SERVING in keys:
        return SERVING
    if not keys:
        raise ModelError(str(path), "has no signature", hint=f"save it with signatures={{'{SERVING}': ...}}")
    if len(keys) > 1:
        what = f"has signatures {', '.join(keys)}, and none is '{SERVING}'"
        raise ModelError(str(path), what, hint=f"choose one: --signature {keys[0]}")
    return keys[0]


def _load_functions(path: Path, key: str, feed: Mapping[str, str]) -> Graph:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # to be kept: its variables die with it
    function = loaded.signatures[key]
    frozen = freeze(function)
    # Arguments by name come sorted, as the outputs do.
    names = dict(zip(frozen.inputs, sorted(function.structured_input_signature[1]), strict=True))
    outputs = list(zip(frozen.outputs, sorted(function.structured_outputs), strict=True))
    return named_graph(
        frozen.graph_def, inputs=names, outputs=outputs, tables=frozen.tables, feed=feed, large=frozen.large
    )


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
        tables = session_reader(session, str(path))
        return named_graph(graph_def, inputs=names, outputs=outputs, tables=tables, feed=feed)
