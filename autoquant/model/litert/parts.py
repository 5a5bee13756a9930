"""Cuts a .tflite into parts: files of a few operators each, which run one after another what the whole runs at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph

LEAST = 4
"""Operators of a part: what lies behind a variant in its part runs once more for each."""


@dataclass(frozen=True)
class Part:
    """Operators of a .tflite from number `start` on, as a file of its own, `lite`.

    Inputs and outputs of that are called by the indices that tensors have in the whole: `reads` is what earlier parts
    made or the model is fed with, `makes` what later parts read, or is wanted. `live` is all that is needed behind the
    part, whoever made it. `places` gives the index in `lite` for that in the whole.
    """

    lite: LiteGraph
    start: int
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    live: tuple[int, ...]
    places: Mapping[int, int]


@dataclass(frozen=True)
class Cutter:
    """Where a .tflite can be cut: where all that lives is float32, with the batch as its first axis.

    `wanted` are tensors that are asked for when they are made, and not handed on for that.
    """

    lite: LiteGraph
    wanted: Collection[int]

    def parts(self) -> list[Part]:
        """As many parts as can be, of LEAST operators and more."""
        edges = self._edges
        return [self._part(start, stop, edges[stop]) for start, stop in pairwise([0, *edges])]

    def whole(self) -> list[Part]:
        """All operators as one part."""
        return [self._part(0, len(self.lite.operators), ())]

    @cached_property
    def _edges(self) -> Mapping[int, tuple[int, ...]]:
        """The numbers of operators before which the file is cut, its end too, and what lives there."""
        count, start, reading = len(self.lite.operators), 0, False
        alive, found = dict.fromkeys(self._inputs), dict[int, tuple[int, ...]]()
        for index, op in enumerate(self.lite.operators):
            reading = reading or not alive.keys().isdisjoint(map(int, op.inputs))
            alive |= dict.fromkeys(int(t) for t in op.outputs if self._last_reader.get(int(t), -1) > index)
            for tensor in map(int, op.inputs):
                if self._last_reader[tensor] == index:
                    alive.pop(tensor, None)
            stop = index + 1
            long = stop - start >= LEAST and count - stop >= LEAST
            making = any(self.lite.makers.get(tensor, -1) >= start for tensor in alive)
            if long and reading and making and self._cuttable and all(map(self._handed_on, alive)):
                found[stop], start, reading = tuple(alive), stop, False
        return {**found, count: ()}

    def _part(self, start: int, stop: int, live: tuple[int, ...]) -> Part:
        operators = self.lite.operators[start:stop]
        read = dict.fromkeys(int(tensor) for op in operators for tensor in op.inputs)
        made = [int(tensor) for op in operators for tensor in op.outputs]
        reads = tuple(tensor for tensor in read if self._made_before(tensor, start))
        makes = tuple(t for t in made if self._last_reader.get(t, -1) >= stop or t in self.wanted)
        alone, places = extract_operators(self.lite.model, operators, reads, makes)
        names = tuple(map(str, reads)), tuple(map(str, makes))
        flatbuffer.add_signature(alone, *names)
        lite = LiteGraph(flatbuffer.write(alone), *names, layers={})
        lite.__dict__["model"] = alone  # to read it again takes as long as to write it
        return Part(lite, start, reads, makes, live, places)

    @cached_property
    def _inputs(self) -> list[int]:
        """The inputs that anything reads."""
        return [tensor for tensor in map(int, self.lite.subgraph.inputs) if tensor in self._last_reader]

    @cached_property
    def _last_reader(self) -> Mapping[int, int]:
        return {tensor: readers[-1] for tensor, readers in self.lite.readers.items()}

    @cached_property
    def _batch(self) -> int | None:
        """The size of batches, None where it is open, -1 where that is not one and the same for all inputs."""
        sizes = {(self.lite.shape_of(tensor) or (-1,))[0] for tensor in self._inputs}
        return sizes.pop() if len(sizes) == 1 else -1

    @property
    def _cuttable(self) -> bool:
        """Whether rows are samples, of which each can run alone, and no operator runs others."""
        return self._batch in (None, 1) and len(self.lite.model.subgraphs) == 1

    def _made_before(self, tensor: int, start: int) -> bool:
        return self.lite.makers.get(tensor, start) < start or tensor in self._inputs

    def _handed_on(self, tensor: int) -> bool:
        """Whether it is float32, and has a row for each sample."""
        known = self.lite.subgraph.tensors[tensor].type == schema.TensorType.FLOAT32
        return known and self.lite.shape_of(tensor)[:1] == (self._batch,)


def extract_operators(
    model: Any, operators: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]
) -> tuple[Any, Mapping[int, int]]:
    """A model (ModelT) of some operators (OperatorT) of one, and for each of their tensors the index that it has there.

    If there is no other subgraph, nothing else is missing. Tensors stay what they are.
    """
    alone, sub = schema.ModelT(), schema.SubGraphT()
    alone.version, alone.buffers, alone.subgraphs, sub.tensors = 3, [schema.BufferT()], [sub], []
    places, buffers, codes = {-1: -1}, {0: 0}, dict[int, int]()

    def place(index: int) -> int:
        if index not in places:
            tensor = copy(model.subgraphs[0].tensors[index])
            if tensor.buffer not in buffers:
                buffers[tensor.buffer] = flatbuffer.add_buffer(alone, model.buffers[tensor.buffer].data)
            tensor.buffer = buffers[tensor.buffer]
            places[index] = len(sub.tensors)
            sub.tensors.append(tensor)
        return places[index]

    sub.inputs, sub.operators = [place(index) for index in inputs], []
    for op in operators:
        own = copy(op)
        own.opcodeIndex = codes.setdefault(op.opcodeIndex, len(codes))
        own.inputs, own.outputs = [place(int(i)) for i in op.inputs], [place(int(i)) for i in op.outputs]
        own.intermediates = None if op.intermediates is None else [place(int(i)) for i in op.intermediates]
        sub.operators.append(own)
    sub.outputs = [place(index) for index in outputs]
    alone.operatorCodes = [model.operatorCodes[index] for index in codes]
    return alone, places
