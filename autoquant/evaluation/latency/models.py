"""Models to be timed: float .tflite files of models that are opened, and interpreters with their inputs set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.litert import Tensor
from autoquant.model.litert.flatbuffer import tensor_name
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import run, sentence
from autoquant.model.model import Model
from autoquant.model.operators import canonical
from autoquant.targets.table import open_target


def lite_of(model: Model) -> LiteGraph:
    """The float .tflite of a model, converted where it is one of TensorFlow. Raises ModelError."""
    program = open_target("litert").lowered(model).program
    assert isinstance(program, LiteGraph)
    return program


def layer_of(lite: LiteGraph) -> Mapping[str, str]:
    """Tensor -> the layer that makes it."""
    graph = lite.subgraph
    made = {name: graph.tensors[graph.operators[index].outputs[0]] for name, index in lite.layers.items()}
    return {canonical(tensor_name(tensor)): name for name, tensor in made.items()}


def one_batch(model: Model, evaluation: Dataset) -> list[Array]:
    """The first sample for each input, or as many as a model of a fixed batch size takes."""
    size = next((spec.shape[0] for spec in model.inputs if spec.shape and spec.shape[0]), 1)
    batch = next(evaluation.batches(size))
    return [batch.inputs[name] for name in model.program.inputs]


def opened(name: str, content: bytes, samples: Sequence[Array], *, threads: int) -> Any:
    """An interpreter with one batch of samples, in the order of the file's inputs, ready to be invoked.

    Real numbers for an INT8 input are quantized as the file says. Raises ModelError where it cannot be run with them.
    """
    interpreter = _interpreter(name, content, threads)
    feed(name, interpreter, samples)
    return interpreter


def _interpreter(name: str, content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
    except ValueError as error:
        raise ModelError(name, f"is not a model that LiteRT reads: {sentence(error)}", hint="give a .tflite") from error
    signatures = interpreter.get_signature_list()
    if len(signatures) > 1:  # only the first would be measured
        hint = "convert the one to be measured alone, or give the run of a search that chose it"
        raise ModelError(name, f"has several signatures: {', '.join(signatures)}", hint=hint)
    return interpreter


def feed(name: str, interpreter: Any, samples: Sequence[Array]) -> None:
    """Make room for a batch of samples, and set it. Raises ModelError where the model does not take it, or not run."""
    details = interpreter.get_input_details()
    shapes = " ".join(str(array.shape) for array in samples)
    if len(details) != len(samples):
        raise ModelError(name, f"has {len(details)} inputs, not {len(samples)}", hint="compare versions of one model")
    try:
        tensors = [Tensor.of(detail) for detail in details]
        run(interpreter, [one.raw(array).astype(one.dtype) for one, array in zip(tensors, samples, strict=True)])
    except (RuntimeError, ValueError) as error:
        hint = "is its batch size fixed? --batch-size 1 may do"
        raise ModelError(name, f"LiteRT cannot run it on inputs {shapes}: {sentence(error)}", hint=hint) from error


def random_samples(
    name: str, content: bytes, *, batch_size: int, image_size: tuple[int, int] | None = None
) -> list[Array]:
    """A batch of random real numbers for each input: in [0, 1), or over the range that an INT8 input has.

    Other integers, which are indices or lengths, are 0. `image_size` is the height and width of images that the file
    leaves open. Raises ModelError where other sizes are open.
    """
    details = _interpreter(name, content, 1).get_input_details()
    generator = np.random.default_rng(0)
    return [_random(generator, detail, _shape(name, detail, batch_size, image_size)) for detail in details]


def _shape(name: str, detail: Mapping[str, Any], batch: int, image_size: tuple[int, int] | None) -> tuple[int, ...]:
    shape = [int(size) for size in detail["shape"]]
    stated = [int(size) for size in detail["shape_signature"]] or shape
    if not shape:
        return ()
    if len(shape) == 4 and image_size is not None and (stated[1] < 0 or stated[2] < 0):
        stated[1:3] = image_size
    if any(size < 0 for size in stated[1:]):
        sizes = "x".join("?" if size < 0 else str(size) for size in stated)
        what = f"leaves sizes of its input '{detail['name']}' open: {sizes}"
        raise ModelError(name, what, hint="give --image-size for images")
    return (batch, *stated[1:])


def _random(generator: np.random.Generator, detail: Mapping[str, Any], shape: tuple[int, ...]) -> Array:
    tensor = Tensor.of(detail)
    if tensor.dtype.kind == "f":
        return generator.random(shape).astype(tensor.dtype)
    if tensor.scale is None:
        return np.zeros(shape, tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    return tensor.real(generator.integers(limits.min, limits.max, shape, endpoint=True))
