"""Functions of TensorFlow 2 as frozen graphs: constants in place of variables and lookup tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.inference import inference_graph
from autoquant.model.interface import rename_interface
from autoquant.model.nodes import LARGE, make_const
from autoquant.model.tables import Read, eager_reader, with_constant_tables

LONGEST = 300
"""Characters of what TensorFlow or Keras say that are shown."""


@dataclass(frozen=True)
class Frozen:
    """A GraphDef without variables: the nodes that are fed data, and the tensors that are its results, in order.

    It has a zero in place of what is large of the variables: `large` are these, by the name of the constant. `tables`
    reads the lookup tables that are still placeholders in it.
    """

    graph_def: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: Read
    large: Mapping[str, Any]


@dataclass(frozen=True)
class Zero:
    """A zero that says it has the type and shape of a variable, as which TensorFlow writes it in a constant."""

    variable: Any

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the variable."""
        found: np.dtype[Any] = np.dtype(self.variable.dtype.as_numpy_dtype)
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the variable."""
        return tuple(self.variable.shape.as_list())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.zeros((), dtype or self.dtype)


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

    class WithoutValues(_FunctionConverterDataInEager):  # type: ignore[misc]  # TensorFlow has no types
        """The same, which does not copy what is large; it is copied again into the constants, and these once more."""

        def _eval(self, tensor: Any) -> Any:
            is_large = isinstance(tensor, tf.Variable) and _size(tensor) >= LARGE
            return Zero(tensor) if is_large else super()._eval(tensor)

    # A Graph does not keep the control edges that lowered control flow needs: If and While stay functions.
    data = WithoutValues(func=function, lower_control_flow=False, aggressive_inlining=False)
    graph_def, converted = _replace_variables_by_constants(data)
    captures = function.graph.internal_captures
    variables = {captures[number].name for number in converted}
    given = [one for one in function.inputs if one.name not in variables and one.dtype != tf.resource]
    tables = eager_reader({inner.op.name: handle for handle, inner in function.graph.captures})
    results = tuple(tensor.name for tensor in function.outputs)
    large = {name: one.numpy.variable for name, one in data.tensor_data.items() if isinstance(one.numpy, Zero)}
    return Frozen(graph_def, tuple(tensor.op.name for tensor in given), results, tables, large)


def _size(variable: Any) -> int:
    """Bytes of a variable of real numbers whose shape is known, 0 of any other."""
    known = variable.dtype.is_floating and variable.shape.is_fully_defined()
    return variable.shape.num_elements() * variable.dtype.size if known else 0


def named_graph(
    graph_def: Any,
    *,
    inputs: Mapping[str, str],
    outputs: Sequence[tuple[str, str]],
    tables: Read,
    feed: Mapping[str, str],
    large: Mapping[str, Any] = MappingProxyType({}),
) -> Graph:
    """A Graph of what the outputs need; `inputs` maps node -> name, `outputs` holds (tensor, name)."""
    graph = inference_graph(
        graph_def,
        inputs=inputs,
        outputs=[tensor for tensor, _ in outputs],
        feed=feed,
        constants=(make_const(name, variable.numpy()) for name, variable in large.items()),
    )
    graph = with_constant_tables(graph, tables)
    return rename_interface(graph, inputs={name: inputs[name] for name in graph.inputs}, outputs=outputs)
