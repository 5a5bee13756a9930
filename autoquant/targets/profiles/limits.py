"""Limits that a device puts on single operators of a .tflite: on kernels, strides, sizes, and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # which loads LiteRT, and the profiles are listed before that is waited for
    from autoquant.model.litert.graph import LiteGraph


class Limit(Protocol):
    """What an operator must keep to. `words` say it in a sentence."""

    @property
    def words(self) -> str:
        """The limit itself."""
        ...

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """What of the operator is beyond the limit, in words; empty where nothing is. Open sizes are within."""
        ...


@dataclass(frozen=True, slots=True)
class Rank:
    """Tensors have `most` dimensions at most."""

    most: int

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"tensors have {self.most} dimensions at most"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        rank = max((len(shape) for shape in _shapes(lite, index)), default=0)
        return f"a tensor has {rank} dimensions, of {self.most} at most" if rank > self.most else ""


@dataclass(frozen=True, slots=True)
class Innermost:
    """Only the innermost dimensions of data, so many, are larger than 1."""

    count: int

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"only the {self.count} innermost dimensions of data are larger than 1"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        data = _shapes(lite, index, data_only=True)
        outer = [size for shape in data for size in shape[: -self.count] if size not in (None, 1)]
        return f"an outer dimension of a tensor is {outer[0]}, not 1" if outer else ""


@dataclass(frozen=True, slots=True)
class Size:
    """No dimension of a tensor is larger than `most`."""

    most: int

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"no dimension of a tensor is larger than {self.most:,}"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        size = max((size or 0 for shape in _shapes(lite, index) for size in shape), default=0)
        return f"a dimension of a tensor is {size:,}, of {self.most:,} at most" if size > self.most else ""


@dataclass(frozen=True, slots=True)
class OneSample:
    """The batch is 1, but for some operators."""

    but: frozenset[str]

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"the batch is 1, but for {', '.join(sorted(self.but))}"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        shapes = [] if lite.kind(index) in self.but else _shapes(lite, index)[:1]
        batch = next((shape[0] for shape in shapes if len(shape) == 4), 1)
        return f"its batch is {batch}, not 1" if batch not in (None, 1) else ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """So many inputs at most, which leaves no room for a bias."""

    operators: frozenset[str]
    most: int

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: {self.most} inputs at most, without a bias"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        given = [tensor for tensor in lite.operators[index].inputs if tensor >= 0]
        return "it has a bias" if lite.kind(index) in self.operators and len(given) > self.most else ""


@dataclass(frozen=True, slots=True)
class NoActivation:
    """No activation is fused into the operator."""

    operators: frozenset[str]

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: no fused activation"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        fused = lite.kind(index) in self.operators and lite.operators[index].builtinOptions.fusedActivationFunction
        return "an activation is fused into it" if fused else ""


@dataclass(frozen=True, slots=True)
class NoGroups:
    """A convolution has one group of channels, or as many as channels where it is DEPTHWISE_CONV_2D."""

    @property
    def words(self) -> str:
        """The limit itself."""
        return "CONV_2D: one group of channels"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) != "CONV_2D":
            return ""
        data, weight = (lite.shape_of(int(tensor)) for tensor in lite.operators[index].inputs[:2])
        groups = (data[-1] or 0) // (weight[-1] or 1)
        return f"it has {groups} groups of channels" if groups > 1 else ""


@dataclass(frozen=True, slots=True)
class OneMultiplier:
    """A depthwise convolution makes one channel of each, unless it has one channel of data alone."""

    @property
    def words(self) -> str:
        """The limit itself."""
        return "DEPTHWISE_CONV_2D: one result for each channel, unless its data has one channel"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) != "DEPTHWISE_CONV_2D":
            return ""
        data, weight = (lite.shape_of(int(tensor)) for tensor in lite.operators[index].inputs[:2])
        multiplier = (weight[-1] or 1) // (data[-1] or weight[-1] or 1)
        return f"it makes {multiplier} channels of each" if multiplier > 1 and data[-1] != 1 else ""


@dataclass(frozen=True, slots=True)
class Flat:
    """The result has two dimensions."""

    operators: frozenset[str]

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: results of two dimensions"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) not in self.operators:
            return ""
        rank = len(lite.shape_of(int(lite.operators[index].outputs[0])))
        return f"its result has {rank} dimensions, not 2" if rank != 2 else ""


@dataclass(frozen=True, slots=True)
class GatherAxis:
    """The axis that GATHER gathers along is the first behind its batch dimensions."""

    @property
    def words(self) -> str:
        """The limit itself."""
        return "GATHER: along the first axis behind its batch dimensions"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        options = lite.operators[index].builtinOptions
        other = lite.kind(index) == "GATHER" and options.axis != options.batchDims
        return f"it gathers along axis {options.axis}" if other else ""


@dataclass(frozen=True, slots=True)
class ResizedTo:
    """Images are resized to `most` in height and width at most."""

    operators: frozenset[str]
    most: int

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: results of height and width {self.most} at most"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) not in self.operators:
            return ""
        _, height, width, _ = lite.shape_of(int(lite.operators[index].outputs[0]))
        large = max(height or 0, width or 0) > self.most
        return f"its result is {height}x{width}, of {self.most} at most" if large else ""


def named(operators: frozenset[str]) -> str:
    """Operators in a sentence."""
    return ", ".join(sorted(operators))


def _shapes(lite: LiteGraph, index: int, *, data_only: bool = False) -> list[tuple[int | None, ...]]:
    """The shapes of what an operator reads and makes, or of what of that is no constant."""
    op = lite.operators[index]
    tensors = [int(tensor) for tensor in (*op.inputs, *op.outputs) if tensor >= 0]
    return [lite.shape_of(tensor) for tensor in tensors if not data_only or lite.value_of(tensor) is None]
