"""The quantized form of a .tflite that can be trained: its operators in TensorFlow, with rounding where INT8 is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.quantization.affine import QMAX, Affine
from autoquant.targets.base import Corrections
from autoquant.targets.litert_calibration import SharedScale
from autoquant.tuning.repairs.lite_pair import LitePair
from autoquant.tuning.repairs.training.lite_functions import results_of
from autoquant.tuning.repairs.training.student import (
    BothModels,
    Compared,
    Trainable,
    WeightGrid,
    fake_quantized,
)

ACTIVATIONS = frozenset({"ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "PRELU", "RELU", "RELU6", "TANH"})


def open_lite_student(
    pair: LitePair, scales: Mapping[str, SharedScale], start: Corrections, trainable: Trainable
) -> BothModels:
    """The float model of a pair and its quantized form; each of its operators is one of FUNCTIONS.

    `scales` gives for each tensor in INT8 its scale, and the tensor that it shares that with.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as tf_graph:
        student = _Student(pair, scales, start, trainable)
        inputs = student.placeholders()
        student.run()
        layers = {name: student.compared(_end(pair.lite, name)) for name in pair.layers}
        outputs = [int(index) for index in pair.lite.subgraph.outputs if student.is_compared(int(index))]
        return BothModels(
            tf_graph, inputs, layers, {pair.lite.name_of(index): student.compared(index) for index in outputs}
        )


def _end(lite: LiteGraph, layer: str) -> int:
    """The tensor that a layer is compared by: behind its activation, where that alone reads it."""
    result = int(lite.operators[lite.layers[layer]].outputs[0])
    readers = lite.readers.get(result, ())
    alone = len(readers) == 1 and result not in lite.subgraph.outputs and lite.kind(readers[0]) in ACTIVATIONS
    return int(lite.operators[readers[0]].outputs[0]) if alone else result


class _Student:
    def __init__(
        self, pair: LitePair, scales: Mapping[str, SharedScale], start: Corrections, trainable: Trainable
    ) -> None:
        self._pair, self._lite = pair, pair.lite
        self._scales, self._start, self._trainable = scales, start, trainable
        self._layers = {pair.lite.layers[name]: layer for name, layer in pair.layers.items()}
        self._plain: dict[int, Any] = {}
        self._before: dict[int, Any] = {}  # what is compared: results before they are rounded
        self._steps: dict[int, Affine] = {}  # tensors that are in steps of a scale already
        self.changed: dict[int, Any] = {}  # a tensor, by index -> what it is in the quantized model

    def placeholders(self) -> Mapping[str, Any]:
        """Make the inputs, by name."""
        import tensorflow as tf

        found = {}
        for name, index in zip(self._lite.inputs, self._lite.subgraph.inputs, strict=True):
            tensor = self._lite.subgraph.tensors[index]
            kind = flatbuffer.DTYPES[tensor.type]
            found[name] = self._plain[int(index)] = tf.compat.v1.placeholder(kind, flatbuffer.shape_of(tensor))
        return found

    def compared(self, tensor: int) -> Compared:
        """A tensor of both models."""
        return Compared(self._plain[tensor], self._before[tensor])

    def is_compared(self, tensor: int) -> bool:
        """Whether a tensor holds real numbers and differs in the quantized model."""
        return tensor in self.changed and self.changed[tensor].dtype.is_floating

    def run(self) -> None:
        """Add the operators of both models; the quantized one has those alone that see something rounded."""
        for index, op in enumerate(self._lite.operators):
            tensors, results = list(map(int, op.inputs)), list(map(int, op.outputs))
            plain = [self._value(tensor) for tensor in tensors]
            self._plain |= zip(results, results_of(self._lite, index, plain), strict=True)
            now = [self.changed.get(tensor, value) for tensor, value in zip(tensors, plain, strict=True)]
            self._quantize(index, now)
            if any(one is not before for one, before in zip(now, plain, strict=True)):
                for result, value in zip(results, results_of(self._lite, index, now), strict=True):
                    self._before[result] = value
                    self.changed[result] = self._rounded_result(result, value)

    def _value(self, tensor: int) -> Any:
        """A tensor of the float model: an array where it is a constant, None where it is left out."""
        if tensor < 0:
            return None
        return self._plain[tensor] if tensor in self._plain else self._lite.value_of(tensor)

    def _quantize(self, index: int, inputs: list[Any]) -> None:
        """Round what an operator reads, in place, as it does in the INT8 model."""
        op, there = self._lite.operators[index], self._pair.fake_quantized(index)
        for place, affine in there.data.items():
            tensor = int(op.inputs[place])
            if self._steps.get(tensor) != affine:
                inputs[place] = self._rounded(inputs[place], affine, [tensor, *map(int, op.outputs)])
        layer = self._layers.get(index)
        if layer is None or layer.weight is None:
            for place, value in there.constants.items():
                inputs[place] = value
            return
        kind = KINDS[self._lite.kind(index)]
        assert kind.weight is not None, layer.name
        inputs[kind.weight] = self._trainable.weight(layer.name, self._grid(index, kind.weight, inputs[kind.weight]))
        if layer.bias is not None:
            assert kind.bias is not None, layer.name
            start = self._start.biases.get(layer.name, np.zeros(layer.channels))
            inputs[kind.bias] = self._trainable.bias(layer.name, inputs[kind.bias], start)

    def _grid(self, index: int, place: int, weight: Array) -> WeightGrid:
        tensor = self._pair.tensor(index, place)
        scales = np.asarray(tensor.quantization.scale, np.float32)
        integers = flatbuffer.value_of(self._pair.saved, tensor)
        assert integers is not None, index
        return WeightGrid(weight, scales.reshape(flatbuffer.scale_shape(tensor, weight.ndim)), integers, -QMAX, QMAX)

    def _rounded_result(self, result: int, value: Any) -> Any:
        affine = self._pair.affine(result)
        if affine is None:
            return value
        self._steps[result] = affine
        return self._rounded(value, affine, [result])

    def _rounded(self, value: Any, affine: Affine, tensors: Sequence[int]) -> Any:
        """A value in steps of the scale of the first of these tensors that has it, or of one that is fixed.

        Those of 16 bits are so small that they are left out.
        """
        import tensorflow as tf

        if affine.bits == 16:
            return value
        for tensor in tensors:
            shared = self._scales.get(self._lite.name_of(tensor))
            if shared is not None and shared.affine == affine:
                return self._trainable.activation(value, shared.source, affine)
        return fake_quantized(value, tf.constant(affine.scale, tf.float32), affine.offset)
