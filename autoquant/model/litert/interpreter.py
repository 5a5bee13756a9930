"""LiteRT's interpreter, as far as it takes one to find out about a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoquant.model.litert.flatbuffer import Array


def plain_interpreter(content: bytes) -> Any:
    """An interpreter without XNNPACK, in which every tensor of the file exists and keeps its value.

    Raises ValueError for what LiteRT does not read.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )


def run(interpreter: Any, values: Sequence[Array]) -> None:
    """Make room for values of these shapes, in the order of the file's inputs, set them, and run.

    Raises RuntimeError or ValueError, as LiteRT does, where the model does not take them or does not run.
    """
    indices = [detail["index"] for detail in interpreter.get_input_details()]
    for index, value in zip(indices, values, strict=True):
        interpreter.resize_tensor_input(index, value.shape)
    interpreter.allocate_tensors()
    for index, value in zip(indices, values, strict=True):
        interpreter.set_tensor(index, value)
    interpreter.invoke()


def sentence(error: Exception) -> str:
    """What LiteRT says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
