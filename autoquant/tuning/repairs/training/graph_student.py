"""The quantized form of a TensorFlow graph that can be trained: its operators again, with rounding before layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoquant.calibration.record import Record, float_weight
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.nodes import calls_functions, channels_first
from autoquant.model.shapes import import_graph, tensor_of
from autoquant.quantization.affine import quantize_weight, spread
from autoquant.targets.ascend_nodes import inverse_factors
from autoquant.targets.base import Corrections
from autoquant.tuning.repairs.training.student import BothModels, Compared, Trainable, WeightGrid

ACTIVATIONS = frozenset({"Elu", "LeakyRelu", "Relu", "Relu6", "Selu", "Sigmoid", "Softplus", "Tanh"})
"""Operators behind a layer that are compared in its place, where they alone read it."""


def open_graph_student(
    graph: Graph, layers: Mapping[str, Layer], record: Record, start: Corrections, trainable: Trainable
) -> BothModels:
    """A graph and its quantized form, whose INT8 layers are those of the record. Raises ModelError as `import_graph`.

    Nothing is trained through an operator without a gradient; what is before it is compared by itself.
    """
    tf_graph = import_graph(graph)
    with tf_graph.as_default():
        student = _Student(graph, tf_graph, record, start, trainable)
        found = student.copied({name: layer for name, layer in layers.items() if layer.records[0] in record})
        ends = {name: _end(graph, layer) for name, layer in layers.items() if layer.records[0] in record}
        compared = {name: Compared(tensor_of(tf_graph, end), found[end]) for name, end in ends.items() if end in found}
        outputs = {
            name: Compared(tensor_of(tf_graph, name), found[name])
            for name in graph.outputs
            if name in found and found[name].dtype.is_floating
        }
        return BothModels(
            tf_graph, {name: tensor_of(tf_graph, name) for name in graph.inputs}, compared, outputs, student.ends
        )


def _end(graph: Graph, layer: Layer) -> str:
    """The tensor that a layer is compared by: behind its bias and its activation, as far as it has them."""
    end = layer.bias or layer.node
    readers = [graph.nodes[reader] for reader in graph.consumers[end]]
    return readers[0].name if len(readers) == 1 and readers[0].op in ACTIVATIONS else end


class _Student:
    def __init__(self, graph: Graph, tf_graph: Any, record: Record, start: Corrections, trainable: Trainable) -> None:
        self._graph, self._tf_graph = graph, tf_graph
        self._record, self._start, self._trainable = record, start, trainable
        self.ends: list[Any] = []  # results through which there is no way back
        self._now: dict[str, Any] = {}  # a tensor of the float model -> what it is in the quantized one

    def copied(self, layers: Mapping[str, Layer]) -> Mapping[str, Any]:
        """The quantized tensors by name, in our spelling; those that see nothing quantized are left out."""
        of_node: dict[str, list[Layer]] = {}
        for layer in layers.values():
            of_node.setdefault(layer.node, []).append(layer)
        biases = {layer.bias: layer for layer in layers.values() if layer.bias}
        for node in self._graph.ordered():
            op = self._tf_graph.get_operation_by_name(node.name)
            inputs = [self._now.get(tensor.name, tensor) for tensor in op.inputs]
            for layer in of_node.get(node.name, ()):
                self._quantize(layer, node, inputs)
            if node.name in biases:
                layer = biases[node.name]
                none = np.zeros(layer.channels)
                inputs[1] = self._trainable.bias(layer.name, inputs[1], self._start.biases.get(layer.name, none))
            if any(one is not before for one, before in zip(inputs, op.inputs, strict=True)):
                self._copy(op, node, inputs)
        return {name.removesuffix(":0"): tensor for name, tensor in self._now.items()}

    def _copy(self, op: Any, node: Any, inputs: list[Any]) -> None:
        """The same operator on other inputs."""
        kinds = [tensor.dtype for tensor in op.outputs]
        attributes = {key: value for key, value in op.node_def.attr.items() if key != "_class"}
        if op.type == "Conv2D":
            made = [self._convolved(inputs, kinds, attributes, node)]
        else:
            made = self._tf_graph.create_op(op.type, inputs, kinds, attrs=attributes).outputs
        if not _has_gradient(op) or calls_functions(node):
            self.ends += made
        for before, now in zip(op.outputs, made, strict=True):
            now.set_shape(before.shape)
            self._now[before.name] = now

    def _convolved(self, inputs: list[Any], kinds: list[Any], attributes: Mapping[str, Any], node: Any) -> Any:
        """A convolution, by groups where there are several: some kernels have no gradient of those."""
        import tensorflow as tf

        data, weight = inputs
        axis = 1 if channels_first(node) else -1
        groups = (data.shape[axis] or weight.shape[2]) // weight.shape[2]
        split = [[data], [weight]] if groups == 1 else [tf.split(data, groups, axis), tf.split(weight, groups, -1)]
        parts = [
            self._tf_graph.create_op("Conv2D", [one, own], kinds, attrs=attributes).outputs[0]
            for one, own in zip(*split, strict=True)
        ]
        return parts[0] if groups == 1 else tf.concat(parts, axis)

    def _quantize(self, layer: Layer, node: Any, inputs: list[Any]) -> None:
        """Round what a layer reads, in place."""
        first = self._record[layer.records[0]]
        for place, entry in zip(layer.places, layer.records, strict=True):
            values = inputs[place]
            if first.balance:
                values = values * inverse_factors(first.balance, node)
            inputs[place] = self._trainable.activation(values, entry, self._record[entry].activation)
        if layer.weight is not None:
            assert layer.operator.weight is not None, layer.name
            inputs[layer.operator.weight] = self._trainable.weight(layer.name, self._grid(layer))

    def _grid(self, layer: Layer) -> WeightGrid:
        record = self._record[layer.name]
        weight, scales = float_weight(self._graph, layer, record.balance), np.array(record.scale_w, np.float32)
        integers = self._start.weights.get(layer.name)
        if integers is None:
            integers = quantize_weight(weight, scales, layer.channel_axes, bits=record.weight_bits)
        spread_scales = spread(scales, weight.ndim, weight.shape, layer.channel_axes)
        steps = 2 ** (record.weight_bits - 1)
        return WeightGrid(weight, spread_scales, integers, -steps, steps - 1)


def _has_gradient(op: Any) -> bool:
    """Whether TensorFlow can go back through an operator; one without a way back counts as one that can."""
    from tensorflow.python.framework import ops

    try:
        ops.get_gradient_function(op)
    except LookupError:
        return False
    return True
