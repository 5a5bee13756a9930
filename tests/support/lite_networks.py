"""Float models of LiteRT with what was seen of their tensors, and saved files in a plain interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import TensorType
from numpy.typing import NDArray

from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.calibration.statistics import Statistics, collect
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import plain_interpreter
from autoquant.model.model import Model
from autoquant.targets.base import Int8File
from autoquant.targets.litert import LiteRTTarget


@dataclass(frozen=True)
class LiteNetwork:
    """A float model of LiteRT, its layers, samples, and what was seen of all its tensors when it ran on them."""

    model: Model
    layers: Mapping[str, Layer]
    x: Any
    statistics: Statistics

    @property
    def lite(self) -> Any:
        return self.model.program

    def plan(self, *in_float: str, activation: Any = None, **settings: Any) -> Plan:
        activation = activation or MinMax()
        plans = {name: layer_plan(layer, LayerPlan(activation, **settings)) for name, layer in self.layers.items()}
        return Plan({name: None if name in in_float else plan for name, plan in plans.items()})

    def make(self, path: Path, plan: Plan, *, io: str = "float32") -> Int8File:
        return LiteRTTarget(io).compiler(self.model, self.layers, self.statistics).compile(plan, path)

    def saved(self, path: Path, *in_float: str, io: str = "float32", **settings: Any) -> SavedLite:
        self.make(path, self.plan(*in_float, **settings), io=io)
        return SavedLite(path.read_bytes())

    def float_values(self, tensor: str) -> Any:
        return SavedLite(self.lite.content).run(self.x, names=(tensor,))[tensor]

    def float_outputs(self, x: Any = None) -> Mapping[str, Any]:
        return SavedLite(self.lite.content).run(self.x if x is None else x)


class SavedLite:
    """A .tflite in a plain interpreter, nothing of ours but the reading of its objects."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.objects = flatbuffer.read(content)
        self.graph = self.objects.subgraphs[0]

    @property
    def kinds(self) -> list[str]:
        """Operators in order; those that make something else than INT8 with a star."""
        starred = [self.graph.tensors[op.outputs[0]].type != TensorType.INT8 for op in self.graph.operators]
        names = [flatbuffer.op_name(self.objects, op) for op in self.graph.operators]
        return [name + "*" * star for name, star in zip(names, starred, strict=True)]

    def operator(self, kind: str, number: int = 0) -> Any:
        return [op for op in self.graph.operators if flatbuffer.op_name(self.objects, op) == kind][number]

    def tensor(self, index: int) -> Any:
        return self.graph.tensors[index]

    def value(self, index: int) -> Any:
        return flatbuffer.value_of(self.objects, self.graph.tensors[index])

    def run(self, x: Any, *, names: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Outputs by name, INT8 as it is, for an input that is real or raw; or tensors by name, by plain kernels."""
        interpreter = plain_interpreter(self.content) if names else Interpreter(model_content=self.content)
        (given,) = interpreter.get_input_details()
        if given["dtype"] == np.int8 and x.dtype != np.int8:
            scale, zero = given["quantization"]
            x = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
        interpreter.resize_tensor_input(given["index"], x.shape, strict=True)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        if names:
            index = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
            return {name: interpreter.get_tensor(index[name]) for name in names}
        return {one["name"]: interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()}


def calibrated(model: Model, x: Any) -> LiteNetwork:
    """A lowered model with what is seen of its tensors, and of all their channels, when it runs on x."""
    layers = LiteRTTarget().survey(model, {}).by_name
    names = tuple(LiteRTTarget("int8").tensors(model, layers))
    channels = {(tensor, one.data_axis) for one in layers.values() if one.can.balanceable for tensor in one.rescaled}
    assert isinstance(model.program, LiteGraph)
    values = SavedLite(model.program.content).run(x, names=names)
    return LiteNetwork(model, layers, x, collect([(1, [values])], key="", channels=sorted(channels)))


IMAGE = (None, 8, 8, 4)
"""The shape of the placeholder of a network of convolutions."""


def constant(*shape: int) -> Any:
    """Numbers that depend on the place in the graph, so that no two constants are one."""
    import tensorflow as tf

    place = len(tf.compat.v1.get_default_graph().get_operations())
    return tf.constant((np.random.default_rng([place, *shape]).normal(size=shape) / 2).astype(np.float32))


def conv(x: Any, name: str, *, stride: int = 1, relu: bool = True) -> Any:
    import tensorflow as tf

    x = tf.nn.conv2d(x, constant(3, 3, x.shape[-1], 4), stride, "SAME", name=name)
    x = tf.nn.bias_add(x, constant(4))
    return tf.nn.relu(x) if relu else x


def named(x: Any, name: str = "y") -> Any:
    import tensorflow as tf

    return tf.identity(x, name=name)


def error(net: LiteNetwork, saved: SavedLite, output: str = "y") -> float:
    want = net.float_outputs()[output]
    return float(np.linalg.norm(saved.run(net.x)[output] - want) / np.linalg.norm(want))


def between_layers() -> dict[str, tuple[Callable[..., Any], set[str]]]:
    import tensorflow as tf

    return {
        "concat": (lambda x: tf.concat([x, x * 2.0, x - 3.0], -1), {"MUL", "SUB", "CONCATENATION"}),
        "split": (lambda x: tf.concat(tf.split(x, 2, -1)[::-1], -1), {"SPLIT", "CONCATENATION"}),
        "softmax": (tf.nn.softmax, {"SOFTMAX"}),
        "logistic": (tf.sigmoid, {"LOGISTIC"}),
        "tanh": (tf.tanh, {"TANH"}),
        "mean": (lambda x: tf.reduce_mean(x, (1, 2), keepdims=True), {"MEAN"}),
        "max pooling": (lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"), {"MAX_POOL_2D"}),
        "pad": (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), {"PAD"}),
        "transpose": (lambda x: tf.transpose(x, (0, 2, 1, 3)), {"TRANSPOSE"}),
        "slice": (lambda x: x[:, 1:5, ::2], {"STRIDED_SLICE"}),
        "reshape": (lambda x: tf.reshape(x, (-1, 4, 16, 4)), {"RESHAPE"}),
        "resize": (lambda x: tf.image.resize(x, (16, 16)), {"RESIZE_BILINEAR"}),
        "mul": (lambda x: x * constant(4), {"MUL"}),
        "hard swish": (lambda x: x * tf.nn.relu6(x + 3.0) / 6.0, {"HARD_SWISH"}),
        "maximum": (lambda x: tf.maximum(x, 1.0 - x), {"SUB", "MAXIMUM"}),
        "pack": (lambda x: tf.reshape(tf.stack([x, x * 3.0], 1), (-1, 16, 8, 4)), {"MUL", "PACK", "RESHAPE"}),
    }


def windows(x: NDArray[Any], size: int) -> NDArray[Any]:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))


def all_values(saved: SavedLite, x: Any) -> dict[int, Any]:
    """All tensors that an interpreter without XNNPACK has, by index."""
    interpreter = plain_interpreter(saved.content)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    outputs = {int(index) for op in saved.graph.operators for index in (*op.inputs, *op.outputs) if index >= 0}
    return {index: interpreter.get_tensor(index) for index in sorted(outputs)}
