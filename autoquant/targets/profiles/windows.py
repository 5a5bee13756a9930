"""Limits that a device puts on the window of operators that move one over an image: kernel, strides, dilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoquant.targets.profiles.limits import named

if TYPE_CHECKING:  # which loads LiteRT
    from autoquant.model.litert.graph import LiteGraph

POOLINGS = frozenset({"AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"})
SAME, VALID = 0, 1
"""Paddings, by their number in a file."""


@dataclass(frozen=True, slots=True)
class Stride:
    """Strides are 1 to `most`; beyond that, if `or_plain`, only without dilation and with VALID padding."""

    most: int
    operators: frozenset[str]
    or_plain: bool = False

    @property
    def words(self) -> str:
        """The limit itself."""
        more = ", unless without dilation and with VALID padding" if self.or_plain else ""
        return f"{named(self.operators)}: strides up to {self.most}{more}"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        options = lite.operators[index].builtinOptions
        if lite.kind(index) not in self.operators or max(options.strideH, options.strideW) <= self.most:
            return ""
        if self.or_plain and options.padding == VALID and set(_dilation(lite, index)) == {1}:
            return ""
        return f"its strides are {options.strideH}x{options.strideW}, of {self.most} at most"


@dataclass(frozen=True, slots=True)
class EqualStride:
    """Strides are one of these, (height, width)."""

    possible: tuple[tuple[int, int], ...]
    operators: frozenset[str]

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: strides of {' or '.join(f'{h}x{w}' for h, w in self.possible)}"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) not in self.operators:
            return ""
        options = lite.operators[index].builtinOptions
        strides = options.strideH, options.strideW
        return "" if strides in self.possible else f"its strides are {strides[0]}x{strides[1]}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The window, dilated, has at most this height, width and area; if `padding` is said, with that padding."""

    operators: frozenset[str]
    height: int
    width: int | None = None
    area: int | None = None
    padding: int | None = None

    @property
    def words(self) -> str:
        """The limit itself."""
        padded = {None: "", SAME: ", padded SAME", VALID: ", padded VALID"}[self.padding]
        width = "" if self.width is None else f", of width {self.width}"
        area = "" if self.area is None else f", of {self.area:,} places"
        return f"{named(self.operators)}{padded}: kernels of height {self.height}{width}{area} at most"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) not in self.operators:
            return ""
        if self.padding is not None and lite.operators[index].builtinOptions.padding != self.padding:
            return ""
        sizes = zip(_dilation(lite, index), _window(lite, index), strict=True)
        height, width = (dilation * (size - 1) + 1 for dilation, size in sizes)
        wide = self.width is not None and width > self.width
        if height <= self.height and not wide and (self.area is None or height * width <= self.area):
            return ""
        return f"its kernel is {height}x{width}, which is too large"


@dataclass(frozen=True, slots=True)
class Dilation:
    """No dilation but where strides are 1, if `with_stride_1`; else none at all."""

    operators: frozenset[str]
    with_stride_1: bool = False

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: no dilation{' but with strides of 1' if self.with_stride_1 else ''}"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) not in self.operators or set(_dilation(lite, index)) == {1}:
            return ""
        options = lite.operators[index].builtinOptions
        plain = self.with_stride_1 and options.strideH == options.strideW == 1
        return "" if plain else "it is dilated"


@dataclass(frozen=True, slots=True)
class SquareDilation:
    """Dilations of height and width are equal."""

    operators: frozenset[str]

    @property
    def words(self) -> str:
        """The limit itself."""
        return f"{named(self.operators)}: the same dilation in height and width"

    def __call__(self, lite: LiteGraph, index: int) -> str:
        """As of a Limit."""
        if lite.kind(index) not in self.operators:
            return ""
        height, width = _dilation(lite, index)
        return "" if height == width else f"its dilations are {height}x{width}"


def _window(lite: LiteGraph, index: int) -> tuple[int, int]:
    """Height and width of the window of an operator that has one."""
    op = lite.operators[index]
    if lite.kind(index) in POOLINGS:
        return op.builtinOptions.filterHeight, op.builtinOptions.filterWidth
    _, height, width, _ = lite.shape_of(int(op.inputs[1]))
    return height or 0, width or 0


def _dilation(lite: LiteGraph, index: int) -> tuple[int, int]:
    """Dilation of height and width; 1 where an operator has none."""
    options = lite.operators[index].builtinOptions
    return getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)
