"""Reads files of TensorFlow as frozen graphs with named inputs and outputs: frozen .pb, SavedModel, Keras 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError

from autoquant.errors import ModelError
from autoquant.model.feed import Feed, feed_texts, feed_values
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.inference import inference_graph
from autoquant.model.interface import find_inputs
from autoquant.model.keras_file import load_keras
from autoquant.model.model import EXPECTED, KERAS, WHOLE, check_file
from autoquant.model.saved_model import load_saved_model
from autoquant.model.tables import with_own_tables
from autoquant.model.trust import check_constants, check_graph


def load(path: Path, feed: Feed = (), *, signature: str | None = None, trust: bool = False) -> Graph:
    """The frozen graph of a model file; outputs are empty where the file names none. Raises ModelError.

    `feed` gives values to placeholders that are no data, such as is_training. Raises UsageError where it does not fit.
    `signature` chooses one of several of a SavedModel. Unless there is `trust`, a model that may do more than compute
    is refused before it runs (trust.py).
    """
    values = feed_values(feed_texts(feed))
    check_file(path)
    try:
        if path.is_dir():
            return load_saved_model(path, values, signature=signature, trust=trust)
        if path.suffix.lower() in KERAS:
            return load_keras(path, values, trust=trust)
        return load_frozen(path, values, trust=trust)
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=EXPECTED) from error


def load_frozen(path: Path, feed: Mapping[str, str], *, trust: bool = False) -> Graph:
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
    check_constants(str(path), graph_def)
    if not trust:
        check_graph(str(path), graph_def)
    graph = inference_graph(graph_def, feed=feed)
    return with_own_tables(replace(graph, inputs=find_inputs(graph)), str(path))
