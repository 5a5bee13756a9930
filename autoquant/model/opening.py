"""Files of TensorFlow, opened: loaded, frozen, normalized, with named inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.python.framework import dtypes

from autoquant.model.fusion import EVERYTHING, Fusion
from autoquant.model.graph import Graph
from autoquant.model.interface import check_runnable, chosen, needed_inputs
from autoquant.model.load import digest_of, load
from autoquant.model.model import InputSpec, Model
from autoquant.model.normalize import check_fusion, normalize
from autoquant.model.shapes import imported, placeholder_shape


def open_graph(path: Path, *, inputs: Sequence[str], outputs: Sequence[str], fusion: Fusion) -> Model:
    """Open a frozen .pb, a SavedModel folder, a .keras or .h5 file, as `open_model` says."""
    graph = prepared(load(path), inputs=inputs, outputs=outputs, fusion=fusion)
    specs = tuple(_spec(graph.nodes[name]) for name in graph.inputs)
    return Model(path.resolve().stem, graph, specs, digest_of(path))


def prepared(
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


def _spec(node: Any) -> InputSpec:
    dtype = np.dtype(dtypes.as_dtype(node.attr["dtype"].type).as_numpy_dtype)
    return InputSpec(node.name, dtype, placeholder_shape(node))
