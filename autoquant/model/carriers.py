"""Nodes that move values about but leave each in its channel, so that a per-channel map may come before them as well.

f(BatchToSpace(x)) = BatchToSpace(f(x)), f(Concat(x, y)) = Concat(f(x), f(y)), f(Reshape(x)) = Reshape(f(x)).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.nodes import changed_node
from autoquant.model.operators import node_of
from autoquant.model.sources import Change, Channels, Source, batch_norm_of, linear_of, read_once


@dataclass(frozen=True, slots=True)
class Carrier:
    """A node with what makes its data: input index -> source, in the order of their channels."""

    node: Any
    parts: Mapping[int, Source]
    channels: Channels

    def fold(self, graph: Graph, scale: Array, shift: Array, name: str) -> Change | None:
        """Each part takes its slice of the map and gets a new name; the node itself gets `name`."""
        node = changed_node(self.node, name=name)
        put, moved, start = [node], {self.node.name: name}, 0
        for number, (index, part) in enumerate(self.parts.items()):
            own = slice(start, start + part.channels.count)
            node.input[index] = graph.free_name(f"{name}/{number}")
            change = part.fold(graph, scale[own], shift[own], node.input[index])
            if change is None:
                return None
            put += change.put
            moved |= change.moved
            start = own.stop
        return Change(tuple(put), moved)


def source_of(graph: Graph, tensor: str) -> Source | None:
    """What makes the tensor and can take up a map of it; None where others read the tensor too, or it is an output."""
    node = graph.nodes[node_of(tensor)]
    if ":" in tensor or not read_once(graph, node.name):
        return None
    if node.op not in CARRIERS:
        return linear_of(graph, node) or batch_norm_of(graph, node)
    parts: dict[int, Source] = {}
    for index in carried(node):
        part = source_of(graph, node.input[index])
        if part is None:
            return None
        parts[index] = part
    channels = CARRIERS[node.op].channels(graph, node, [part.channels for part in parts.values()])
    return None if channels is None else Carrier(node, parts, channels)


def carried(node: Any) -> range:
    """Indices of the inputs that a carrier moves; none of another node."""
    return range(len(node.input))[CARRIERS[node.op].inputs] if node.op in CARRIERS else range(0)


def _batch_to_space(graph: Graph, node: Any, parts: list[Channels]) -> Channels | None:
    """Unmoved where height and width alone are, and the channels lie elsewhere."""
    return parts[0] if parts[0].rank == 4 and parts[0].axis == -1 else None


def _batch_to_space_nd(graph: Graph, node: Any, parts: list[Channels]) -> Channels | None:
    """Unmoved unless the channels lie among the axes that blocks are made of, with blocks of 1."""
    (channels,) = parts
    blocks, crops = graph.constant(node.input[1]), graph.constant(node.input[2])
    if blocks is None or channels.rank is None:
        return None
    place = channels.rank + channels.axis - 1  # the first block is that of axis 1
    if place < blocks.size and (blocks[place] != 1 or crops is None or crops[place].any()):
        return None
    return channels


def _concat(graph: Graph, node: Any, parts: list[Channels]) -> Channels | None:
    """One part behind the other, where it is their channels that are concatenated."""
    axis = graph.constant(node.input[0 if node.op == "Concat" else -1])
    places = {(part.axis, part.rank) for part in parts}
    if axis is None or len(places) != 1 or not parts[0].lie_on(int(axis.reshape(()))):
        return None
    return Channels(sum(part.count for part in parts), parts[0].axis, parts[0].rank)


def _reshape(graph: Graph, node: Any, parts: list[Channels]) -> Channels | None:
    """Channels that came last and that the new shape has as one axis, with nothing but axes of 1 behind it."""
    (channels,) = parts
    sizes, rank = _last_sizes(graph, node.input[1])
    behind = next(
        (place for place, size in enumerate(reversed(sizes)) if size in (channels.count, None) or size > 1), None
    )
    if channels.axis != -1 or behind is None or sizes[-1 - behind] != channels.count:
        return None
    return Channels(channels.count, -1 - behind, rank)


def _last_sizes(graph: Graph, tensor: str) -> tuple[list[int | None], int | None]:
    """The last sizes in a shape, constant or packed or concatenated from parts, None for those that are not constant.

    With the rank, where these are all of them.
    """
    value, node = graph.constant(tensor), graph.nodes[node_of(tensor)]
    if value is not None:
        sizes = [None if size < 0 else int(size) for size in value.reshape(-1)]
        return sizes, len(sizes)
    if node.op == "Pack":
        return [size for edge in node.input for size in _last_sizes(graph, edge)[0] or [None]], len(node.input)
    if node.op != "ConcatV2":
        return [], None
    found: list[int | None] = []
    for edge in reversed(node.input[:-1]):
        sizes, length = _last_sizes(graph, edge)
        found = sizes + found
        if length is None:
            return found, None
    return found, len(found)


@dataclass(frozen=True, slots=True)
class Move:
    """What an operator moves: which of its inputs, and where the result has its channels, given where those have them.

    `channels` gives None where they get lost.
    """

    inputs: slice
    channels: Callable[[Graph, Any, list[Channels]], Channels | None]


CARRIERS: Mapping[str, Move] = MappingProxyType(
    {
        "BatchToSpace": Move(slice(1), _batch_to_space),
        "BatchToSpaceND": Move(slice(1), _batch_to_space_nd),
        "Concat": Move(slice(1, None), _concat),
        "ConcatV2": Move(slice(-1), _concat),
        "Reshape": Move(slice(1), _reshape),
    }
)
"""Operators that leave a value in the channel where it was."""
