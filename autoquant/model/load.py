"""Files of TensorFlow: each format becomes a frozen graph, and that a normalized one with named inputs and outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import dtypes

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.interface import check_runnable, chosen, found_inputs, needed_inputs
from autoquant.model.load_keras import load_keras
from autoquant.model.load_saved_model import load_saved_model
from autoquant.model.model import EVERYTHING, Fusion, InputSpec, Model
from autoquant.model.normalize import check_fusion, normalize
from autoquant.model.shapes import imported, placeholder_shape

EXPECTED = "a frozen .pb, a SavedModel folder, a .keras or an .h5 file is expected"


def open_graph(path: Path, *, inputs: Sequence[str], outputs: Sequence[str], fusion: Fusion) -> Model:
    """Open a frozen .pb, a SavedModel folder, a .keras or .h5 file, as `open_model` says."""
    graph = prepare(load(path), inputs=inputs, outputs=outputs, fusion=fusion)
    specs = tuple(_spec(graph.nodes[name]) for name in graph.inputs)
    return Model(path.resolve().stem, graph, specs, digest_of(path))


def prepare(
    loaded: Graph, *, inputs: Sequence[str] = (), outputs: Sequence[str] = (), fusion: Fusion = EVERYTHING
) -> Graph:
    """A loaded graph between its inputs and outputs, checked and normalized. Raises as `open_model`."""
    frozen = chosen(loaded, inputs=inputs, outputs=outputs)
    check_fusion(frozen, fusion)
    imported(frozen)  # whatever TensorFlow refuses is found here, not in the middle of a run
    graph = normalize(frozen, fusion)
    if not inputs:
        graph = replace(graph, inputs=needed_inputs(graph)).pruned()
    check_runnable(graph)
    return graph


def load(path: Path) -> Graph:
    """The frozen graph of a model file; outputs are empty where the file names none. Raises ModelError."""
    if not path.exists():
        raise ModelError(str(path), "there is no such file", hint=EXPECTED)
    loader = load_saved_model if path.is_dir() else LOADERS.get(path.suffix.lower())
    if loader is None:
        raise ModelError(str(path), f"cannot open a '{path.suffix}' file", hint=EXPECTED)
    try:
        return loader(path)
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=EXPECTED) from error


def load_frozen(path: Path) -> Graph:
    """A frozen GraphDef in binary form."""
    if path.name == "saved_model.pb":
        raise ModelError(str(path), "is the graph of a SavedModel", hint=f"give its folder: {path.parent}")
    graph_def = graph_pb2.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError(str(path), "is not a GraphDef, or is incomplete", hint="is the file whole?") from error
    if not any(node.op for node in graph_def.node):
        raise ModelError(str(path), "holds no graph: it has no nodes", hint="is the file whole?")
    graph = Graph.from_graph_def(graph_def, inputs=(), outputs=())
    return replace(graph, inputs=found_inputs(graph))


LOADERS: Mapping[str, Callable[[Path], Graph]] = MappingProxyType(
    {".h5": load_keras, ".hdf5": load_keras, ".keras": load_keras, ".pb": load_frozen}
)
"""Suffix -> how to read the file; a folder is a SavedModel."""


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file; of a SavedModel, of the names and bytes of its graph and variables."""
    digest: Any = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
        return str(digest.hexdigest())
    for part in [path / "saved_model.pb", *sorted((path / "variables").glob("*"))]:
        content = part.read_bytes()
        # Lengths keep what belongs to a name apart from what belongs to the bytes.
        digest.update(f"{part.relative_to(path).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return str(digest.hexdigest())


def _spec(node: Any) -> InputSpec:
    dtype = np.dtype(dtypes.as_dtype(node.attr["dtype"].type).as_numpy_dtype)
    return InputSpec(node.name, dtype, placeholder_shape(node))
