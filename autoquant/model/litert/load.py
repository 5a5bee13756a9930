"""Files of LiteRT, opened without TensorFlow: float ones to be quantized, and any to be run as they are."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.errors import ModelError, did_you_mean, listed
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.checks import check_float, check_inputs, check_operators, check_sound, has_scales
from autoquant.model.litert.fake_quants import NOTE, remove_fake_quants
from autoquant.model.litert.flatbuffer import DTYPES, tensor_name
from autoquant.model.litert.functions import keep_subgraphs
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.half import to_float32
from autoquant.model.litert.interpreter import (
    plain_interpreter,
    sentence,
    stated_shapes,
    tensor_shapes,
    with_open_batch,
)
from autoquant.model.litert.kinds import KINDS
from autoquant.model.litert.tidy import tidy
from autoquant.model.model import InputSpec, Model

IDENTIFIER = b"TFL3"
WHOLE = "is the file whole, and a float .tflite?"


def load_lite(path: Path, *, signature: str | None = None) -> Model:
    """Open a float .tflite; `signature` chooses among several. What has half precision in it has float32 in the model.

    The batch is open where the model allows that, whatever the file says. Raises ModelError where the file is none, or
    is damaged or quantized already, where it has several signatures and none is chosen, and where it has operators that
    LiteRT does not know or that run subgraphs, other than loops and conditions. Rounding that quantization-aware
    training left between floats is removed.
    """
    content = _content(path)
    model = _objects(path, content)
    check_sound(model, where=str(path))
    inputs, outputs = _select_signature(model, signature, where=str(path))
    check_operators(model, where=str(path))
    rounded = remove_fake_quants(model)
    check_float(model, where=str(path))
    to_float32(model, where=str(path))
    check_inputs(model, inputs, where=str(path))
    tidy(model)
    with_open_batch(model)
    lite = LiteGraph(flatbuffer.write(model), inputs, outputs, _layers(model))
    tensor_shapes(lite)  # whatever LiteRT refuses is found here, not in the middle of a run
    notes = (NOTE.format(rounded),) if rounded else ()
    return Model(path.resolve().stem, lite, _specs(lite), hashlib.sha256(content).hexdigest(), notes)


def load_as_is(path: Path, *, signature: str | None = None) -> Model:
    """Open any .tflite to be run as the file is, float or INT8, by whichever tool; `signature` chooses among several.

    Inputs of integers with a scale take real numbers, as LiteRTRunner feeds them. Raises ModelError where the file is
    none, or is damaged, or where it has several signatures and none is chosen.
    """
    content = _content(path)
    model = _objects(path, content)
    check_sound(model, where=str(path))
    before = [(_names(found.inputs), _names(found.outputs)) for found in model.signatureDefs or ()]
    inputs, outputs = _select_signature(model, signature, where=str(path))
    check_inputs(model, inputs, where=str(path))
    as_is = before == [({*inputs}, {*outputs})]  # LiteRT runs the only signature of a file under these names
    lite = LiteGraph(content if as_is else flatbuffer.write(model), inputs, outputs, {})
    return Model(path.resolve().stem, lite, _real_specs(lite), hashlib.sha256(content).hexdigest())


def _names(entries: Iterable[Any] | None) -> set[str]:
    """The names in a signature."""
    return {entry.name.decode(errors="replace") for entry in entries or ()}


def signatures(path: Path) -> tuple[str, ...]:
    """The names of the signatures of a .tflite. Raises ModelError where the file is none, or damaged."""
    found = _objects(path, _content(path)).signatureDefs or ()
    return tuple(signature.signatureKey.decode(errors="replace") for signature in found)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=WHOLE) from error
    if content[4:8] != IDENTIFIER:
        what = "is empty" if not content else "is not a .tflite: the mark TFL3 is not at its beginning"
        raise ModelError(str(path), what, hint="convert the model again")
    return content


def _objects(path: Path, content: bytes) -> Any:
    """The objects of a file that LiteRT has verified."""
    try:
        missing = flatbuffer.missing_parts(content)
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise ModelError(str(path), f"is damaged or cut short: {sentence(error)}", hint=WHOLE) from error
    if missing:
        raise ModelError(str(path), f"is damaged: it has no {listed(missing)}", hint=WHOLE)
    try:
        plain_interpreter(content)
    except ValueError as error:
        raise ModelError(str(path), f"is damaged or cut short: {sentence(error)}", hint=WHOLE) from error
    try:
        return flatbuffer.read(content)
    except (struct.error, IndexError, TypeError, ValueError) as error:  # what LiteRT does not look at
        raise ModelError(str(path), f"is damaged: {sentence(error)}", hint=WHOLE) from error


def _select_signature(model: Any, wanted: str | None, *, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Leave the subgraph of one signature, and what it runs, in a file's objects; names of its inputs and outputs.

    Without any signature the first subgraph gets one, with the names of its tensors. Raises ModelError where there are
    several and none is chosen, or not the one that is.
    """
    chosen = _signature(model, wanted, where)
    number = 0 if chosen is None else int(chosen.subgraphIndex)
    graph = model.subgraphs[number]
    inputs = _interface_names(graph, graph.inputs, () if chosen is None else chosen.inputs)
    outputs = _interface_names(graph, graph.outputs, () if chosen is None else chosen.outputs)
    keep_subgraphs(model, number)
    key = flatbuffer.SIGNATURE if chosen is None else chosen.signatureKey.decode(errors="replace")
    flatbuffer.add_signature(model, inputs, outputs, key=key)
    return inputs, outputs


def _signature(model: Any, wanted: str | None, where: str) -> Any | None:
    known = {signature.signatureKey.decode(errors="replace"): signature for signature in model.signatureDefs or ()}
    if wanted is not None and wanted not in known:
        listed = f"it has: {', '.join(known)}" if known else "it has none: leave out --signature"
        raise ModelError(where, f"has no signature '{wanted}'", hint=did_you_mean(wanted, known, otherwise=listed))
    if wanted is None and len(known) > 1:
        raise ModelError(where, f"has several signatures: {', '.join(known)}", hint="choose one with --signature")
    return known[wanted] if wanted is not None else next(iter(known.values()), None)


def _interface_names(graph: Any, tensors: Iterable[int], entries: Iterable[Any]) -> tuple[str, ...]:
    """Names of inputs or outputs, each another: those that the signature gives, else those of the tensors."""
    given: dict[int, list[str]] = {}
    for entry in entries:
        given.setdefault(int(entry.tensorIndex), []).append(entry.name.decode(errors="replace"))
    found: list[str] = []
    for index in map(int, tensors):
        name = (
            given[index].pop(0)
            if given.get(index)
            else flatbuffer.tensor_name(graph.tensors[index]) or f"tensor_{index}"
        )
        found.append(name if name not in found else f"{name}_{len(found)}")
    return tuple(found)


def _layers(model: Any) -> dict[str, int]:
    """Index of each operator that is a layer by its kind, called as its result is."""
    graph = model.subgraphs[0]
    return {
        tensor_name(graph.tensors[op.outputs[0]]): index
        for index, op in enumerate(graph.operators)
        if flatbuffer.op_name(model, op) in KINDS
    }


def _specs(lite: LiteGraph) -> tuple[InputSpec, ...]:
    types = (DTYPES[lite.subgraph.tensors[index].type] for index in lite.subgraph.inputs)
    shapes = stated_shapes(lite).items()
    return tuple(InputSpec(name, dtype, shape) for (name, shape), dtype in zip(shapes, types, strict=True))


def _real_specs(lite: LiteGraph) -> tuple[InputSpec, ...]:
    """What the inputs take, real numbers where integers stand for such."""
    tensors = [lite.subgraph.tensors[index] for index in lite.subgraph.inputs]
    scaled = [has_scales(tensor.quantization) for tensor in tensors]
    pairs = [(spec, found and spec.dtype.kind in "iu") for spec, found in zip(_specs(lite), scaled, strict=True)]
    return tuple(replace(spec, dtype=np.dtype(np.float32)) if stands else spec for spec, stands in pairs)
