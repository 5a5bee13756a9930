"""The content of a .tflite file as objects (schema.fbs of LiteRT), and the few things that are always asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated
from ai_edge_litert.tools import flatbuffer_utils

from autoquant.array import Array
from autoquant.memory import trim_memory
from autoquant.model.litert.packing import with_known

schema = schema_py_generated
"""The objects of a .tflite, and the numbers of their enumerations."""

BUILTINS: Mapping[int, str] = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}
"""Number of an operator -> its name, such as CONV_2D."""
DTYPES: Mapping[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.FLOAT64: np.dtype(np.float64),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.INT16: np.dtype(np.int16),
    schema.TensorType.INT32: np.dtype(np.int32),
    schema.TensorType.INT64: np.dtype(np.int64),
    schema.TensorType.BOOL: np.dtype(np.bool_),
}
"""Type of a tensor -> that of NumPy; other types have none."""
TYPES: Mapping[int, str] = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
"""Type of a tensor -> its name, such as FLOAT32."""
SIGNATURE = "serving_default"
IDENTIFIER = b"TFL3"
LENGTH = 4
"""Bytes of the length in front of a vector."""
ALIGNED, REST = 64, 1 << 20
"""Bytes that a constant takes beside its own, and those that are enough for the rest of most files."""


class LaidOut(schema.BufferT):  # type: ignore[name-defined,misc]  # the schema has no types
    """A buffer of so many bytes, which are made whenever they are asked for, and take no memory in between."""

    def __init__(self, layout: Callable[[], Array], nbytes: int) -> None:
        self._layout = layout
        self.nbytes = nbytes
        self.offset = self.size = 0

    @property
    def data(self) -> Array:
        """The bytes."""
        return np.ascontiguousarray(self._layout()).reshape(-1).view(np.uint8)

    def Pack(self, builder: Any) -> Any:  # noqa: N802  # as the schema calls it
        """Write the buffer, values right where they belong: that of the schema would ask for the bytes four times."""
        vector = builder.CreateNumpyVector(np.zeros(self.nbytes, np.uint8))
        laid = self._layout()
        there = np.frombuffer(builder.Bytes, laid.dtype, laid.size, builder.Head() + LENGTH)
        there.reshape(laid.shape)[...] = laid
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def read(content: bytes | bytearray) -> Any:
    """The objects (ModelT) of a file's bytes; constants are views of these, which nobody may change."""
    return flatbuffer_utils.read_model_from_bytearray(content)


def missing_parts(content: bytes) -> list[str]:
    """What a file does not have at all though LiteRT takes it for granted, which ends its process then.

    Raises struct.error, IndexError or ValueError where the file is too damaged for that.
    """
    root = schema.Model.GetRootAs(content)
    parts = {
        "operator codes": root.OperatorCodesIsNone,
        "subgraphs": root.SubgraphsIsNone,
        "buffers": root.BuffersIsNone,
    }
    return [part for part, is_missing in parts.items() if is_missing()]


def write(model: Any) -> bytes:
    """The bytes of a file of these objects (ModelT), which may be used further."""
    # A builder that grows copies all that it has, again and again.
    builder = flatbuffer_utils.flatbuffers.Builder(sum(map(_room, model.buffers or ())) + REST)
    builder.Finish(with_known(model).Pack(builder), file_identifier=IDENTIFIER)
    trim_memory(len(builder.Bytes))
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _room(buffer: Any) -> int:
    """Bytes that a buffer takes at most."""
    if isinstance(buffer, LaidOut):
        return buffer.nbytes + ALIGNED
    return 0 if buffer.data is None else len(buffer.data) + ALIGNED


def op_name(model: Any, op: Any) -> str:
    """Name of an operator, such as CONV_2D; of a custom one, 'CUSTOM' and its own."""
    code = model.operatorCodes[op.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # old files have only the second
    name = BUILTINS.get(number, f"operator {number}")
    return f"CUSTOM {(code.customCode or b'?').decode(errors='replace')}" if name == "CUSTOM" else name


def tensor_name(tensor: Any) -> str:
    """Name of a tensor as text."""
    return str(tensor.name.decode(errors="replace")) if isinstance(tensor.name, bytes) else str(tensor.name or "")


def type_name(tensor: Any) -> str:
    """Name of a tensor's type, such as FLOAT32."""
    return TYPES.get(tensor.type, "unknown")


def shape_of(tensor: Any) -> tuple[int | None, ...]:
    """Shape of a tensor; dimensions that are open are None."""
    signature = tensor.shapeSignature
    sizes = tensor.shape if signature is None or len(signature) == 0 else signature
    return () if sizes is None else tuple(None if size < 0 else int(size) for size in sizes)


def scale_shape(tensor: Any, rank: int) -> list[int]:
    """The shape in which the scales of a quantized tensor (TensorT) broadcast against its values of this rank."""
    shape = [1] * rank
    if len(tensor.quantization.scale) > 1:
        shape[tensor.quantization.quantizedDimension] = -1
    return shape


def value_of(model: Any, tensor: Any) -> Array | None:
    """The value of a tensor that is a constant of a known type and not sparse, or None."""
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0 or tensor.type not in DTYPES or tensor.sparsity is not None:
        return None
    value: Array = np.asarray(data, np.uint8).view(DTYPES[tensor.type])
    return value.reshape(() if tensor.shape is None else tuple(tensor.shape))


def input_of(op: Any, place: int | None) -> int | None:
    """Index of the tensor that an operator has as this input; None where it has none."""
    there = place is not None and place < len(op.inputs) and op.inputs[place] >= 0
    return int(op.inputs[place]) if there else None


def add_buffer(model: Any, data: Any) -> int:
    """Give the file another buffer of these bytes; returns its index."""
    buffer = schema.BufferT()
    buffer.data = data
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def add_constant(model: Any, graph: Any, name: str, value: Array) -> int:
    """Give a subgraph another constant; returns the index of its tensor."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), list(value.shape)
    tensor.type = next(code for code, dtype in DTYPES.items() if dtype == value.dtype)
    tensor.buffer = add_buffer(model, np.frombuffer(value.tobytes(), np.uint8))
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def operator_index(model: Any, code: int) -> int:
    """Index of the entry for a builtin operator among the kinds of a file, which gets one where it has none."""
    for index, entry in enumerate(model.operatorCodes):
        if max(entry.builtinCode, entry.deprecatedBuiltinCode) == code:
            return index
    model.operatorCodes.append(operator_code(code))
    return len(model.operatorCodes) - 1


def operator_code(code: int) -> Any:
    """A builtin operator's entry (OperatorCodeT)."""
    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    entry.version = 2 if code == schema.BuiltinOperator.DEQUANTIZE else 1  # INT8 is read from version 2 on
    return entry


def set_shape(model: Any, reshape: Any, shape: Sequence[int]) -> None:
    """Let a RESHAPE of the first subgraph give a constant shape."""
    graph = model.subgraphs[0]
    name = tensor_name(graph.tensors[reshape.outputs[0]]) + "/shape"
    reshape.inputs = [int(reshape.inputs[0]), add_constant(model, graph, name, np.array(shape, np.int32))]
    reshape.builtinOptions, reshape.builtinOptionsType = None, schema.BuiltinOptions.NONE  # they would repeat the shape


def drop_unread(graph: Any, superfluous: Callable[[Any], bool]) -> None:
    """Remove the operators of a subgraph whose results nothing reads, and that are `superfluous` then."""
    while True:
        read = {int(index) for op in graph.operators for index in op.inputs} | {int(index) for index in graph.outputs}
        left = [op for op in graph.operators if not read.isdisjoint(map(int, op.outputs)) or not superfluous(op)]
        if len(left) == len(graph.operators):
            return
        graph.operators = left


def add_signature(model: Any, inputs: Sequence[str], outputs: Sequence[str], *, key: str = SIGNATURE) -> None:
    """Give the first subgraph a signature, its only one: names for its inputs and its outputs, in their order."""
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key.encode(), 0
    signature.inputs = _named(inputs, graph.inputs)
    signature.outputs = _named(outputs, graph.outputs)
    model.signatureDefs = [signature]


def _named(names: Sequence[str], tensors: Iterable[int]) -> list[Any]:
    entries = []
    for name, index in zip(names, tensors, strict=True):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), int(index)
        entries.append(entry)
    return entries
