"""Functions of TensorFlow 2 as frozen graphs: constants in place of variables and lookup tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.inference import inference_graph
from autoquant.model.interface import rename_interface
from autoquant.model.tables import Read, eager_reader, with_constant_tables

LONGEST = 300
"""Characters of what TensorFlow or Keras say that are shown."""


@dataclass(frozen=True)
class Frozen:
    """A GraphDef without variables: the nodes that are fed data, and the tensors that are its results, in order.

    `tables` reads the lookup tables that are still placeholders in it.
    """

    graph_def: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: Read


def freeze(function: Any) -> Frozen:
    """A concrete function with its variables as constants and its calls inlined.

    `convert_variables_to_constants_v2` does the same, and then makes a function of it again, which takes five times as
    long and ten times the memory of the weights.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        _FunctionConverterDataInEager,
        _replace_variables_by_constants,
    )

    # A Graph does not keep the control edges that lowered control flow needs: If and While stay functions.
    data = _FunctionConverterDataInEager(func=function, lower_control_flow=False, aggressive_inlining=False)
    graph_def, converted = _replace_variables_by_constants(data)
    captures = function.graph.internal_captures
    variables = {captures[number].name for number in converted}
    given = [one for one in function.inputs if one.name not in variables and one.dtype != tf.resource]
    tables = eager_reader({inner.op.name: handle for handle, inner in function.graph.captures})
    results = tuple(tensor.name for tensor in function.outputs)
    return Frozen(graph_def, tuple(tensor.op.name for tensor in given), results, tables)


def named_graph(
    graph_def: Any,
    *,
    inputs: Mapping[str, str],
    outputs: Sequence[tuple[str, str]],
    tables: Read,
    feed: Mapping[str, str],
) -> Graph:
    """A Graph of what the outputs need; `inputs` maps node -> name, `outputs` holds (tensor, name)."""
    graph = inference_graph(graph_def, inputs=inputs, outputs=[tensor for tensor, _ in outputs], feed=feed)
    graph = with_constant_tables(graph, tables)
    return rename_interface(graph, inputs={name: inputs[name] for name in graph.inputs}, outputs=outputs)
