"""The subgraphs of a .tflite that operators of others run: the bodies of loops and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from autoquant.model.litert import flatbuffer

RUN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"IF": ("thenSubgraphIndex", "elseSubgraphIndex"), "WHILE": ("condSubgraphIndex", "bodySubgraphIndex")}
)
"""Operator -> the options that number the subgraphs which it runs."""


def keep_subgraphs(model: Any, first: int) -> None:
    """Leave of a file's subgraphs the one of this number, as the first, and those that it runs."""
    needed = [first]
    for number in needed:  # which grows
        run = {int(getattr(options, name)) for options, name in _run_by(model, model.subgraphs[number])}
        needed += sorted(run.difference(needed))
    place = {old: new for new, old in enumerate(needed)}
    model.subgraphs = [model.subgraphs[number] for number in needed]
    for options, name in [each for graph in model.subgraphs for each in _run_by(model, graph)]:
        setattr(options, name, place[int(getattr(options, name))])


def missing_subgraph(model: Any, graph: Any) -> str | None:
    """What is wrong with the subgraphs that one runs: an operator without options, or of which one is not there."""
    for op in graph.operators:
        kind = flatbuffer.op_name(model, op)
        numbers = [getattr(op.builtinOptions, name, -1) for name in RUN.get(kind, ())]
        if not all(0 <= number < len(model.subgraphs) for number in numbers):
            return f"{kind} runs a part that is not there"
    return None


def _run_by(model: Any, graph: Any) -> Iterator[tuple[Any, str]]:
    for op in graph.operators:
        for name in RUN.get(flatbuffer.op_name(model, op), ()):
            yield op.builtinOptions, name
