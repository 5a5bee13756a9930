"""Signatures of a .tflite: which part of the file is used, and what its inputs and outputs are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autoquant.errors import ModelError, did_you_mean
from autoquant.model.litert import flatbuffer


def keep_signature(model: Any, wanted: str | None, *, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Leave only the subgraph of one signature in a file's objects; returns the names of its inputs and outputs.

    Without any signature the first subgraph gets one, with the names of its tensors. Raises ModelError where there are
    several and none is chosen, or not the one that is.
    """
    chosen = _chosen(model, wanted, where)
    number = 0 if chosen is None else int(chosen.subgraphIndex)
    graph = model.subgraphs[number]
    inputs = _names(graph, graph.inputs, () if chosen is None else chosen.inputs)
    outputs = _names(graph, graph.outputs, () if chosen is None else chosen.outputs)
    model.subgraphs = [graph, *(other for other in model.subgraphs if other is not graph)]
    key = flatbuffer.SIGNATURE if chosen is None else chosen.signatureKey.decode(errors="replace")
    flatbuffer.add_signature(model, inputs, outputs, key=key)
    return inputs, outputs


def _chosen(model: Any, wanted: str | None, where: str) -> Any | None:
    known = {signature.signatureKey.decode(errors="replace"): signature for signature in model.signatureDefs or ()}
    if wanted is not None and wanted not in known:
        listed = f"it has: {', '.join(known)}" if known else "it has none: leave out --signature"
        raise ModelError(where, f"has no signature '{wanted}'", hint=did_you_mean(wanted, known, otherwise=listed))
    if wanted is None and len(known) > 1:
        raise ModelError(where, f"has several signatures: {', '.join(known)}", hint="choose one with --signature")
    return known[wanted] if wanted is not None else next(iter(known.values()), None)


def _names(graph: Any, tensors: Iterable[int], entries: Iterable[Any]) -> tuple[str, ...]:
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
