"""What the weights of a convolution meet: patches of its data, one for each place of its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array


@dataclass(frozen=True, slots=True)
class Axis:
    """How a kernel moves along one axis of data of some `size`, `before` zeros in front of it, to so many `results`.

    `transposed` is the gradient of that: each value of the data spreads the kernel over the results, `stride` apart,
    of which those `before` the first are left out.
    """

    size: int
    kernel: int
    results: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    transposed: bool = False

    @classmethod
    def same(cls, size: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> Axis:
        """With padding SAME: as many results as strides, and of the zeros that takes the smaller half in front.

        >>> Axis.same(6, 3, stride=2)
        Axis(size=6, kernel=3, results=3, stride=2, dilation=1, before=0, transposed=False)
        """
        results = -(-size // stride)
        missing = (results - 1) * stride + (kernel - 1) * dilation + 1 - size
        return cls(size, kernel, results, stride, dilation, max(missing, 0) // 2)

    @classmethod
    def padded(
        cls, size: int, kernel: int, *, stride: int = 1, dilation: int = 1, zeros: tuple[int, int] = (0, 0)
    ) -> Axis:
        """With so many zeros in front and behind: none with padding VALID."""
        room = sum(zeros) + size - (kernel - 1) * dilation - 1
        return cls(size, kernel, max(room // stride + 1, 0), stride, dilation, zeros[0])

    @classmethod
    def spread(cls, size: int, kernel: int, results: int, *, stride: int = 1, before: int | None = None) -> Axis:
        """Transposed, to a number of results that its operator is told; `before` None is that of padding SAME."""
        missing = (size - 1) * stride + kernel - results
        return cls(
            size, kernel, results, stride, before=max(missing, 0) // 2 if before is None else before, transposed=True
        )

    def sources(self, places: Array) -> Array:
        """The value of the data that each weight meets in results at `places`, (places, kernel); -1 where it is none.

        >>> Axis.same(4, 3).sources(np.array([0, 1])).tolist()
        [[-1, 0, 1], [0, 1, 2]]
        """
        if self.transposed:
            found, left = np.divmod(places[:, None] + self.before - np.arange(self.kernel), self.stride)
            found = np.where(left == 0, found, -1)
        else:
            found = places[:, None] * self.stride - self.before + np.arange(self.kernel) * self.dilation
        return np.where((found >= 0) & (found < self.size), found, -1)


def patches(data: Array, axes: Sequence[Axis], chosen: Array) -> Array:
    """Patches of data (samples, *axes, channels), for results by their number in row-major order of (samples, *axes).

    Shape is (chosen, values of the kernel, channels); where a weight meets no value there are zeros.
    """
    sources, *places = np.unravel_index(chosen, (len(data), *(axis.results for axis in axes)))
    met = np.ones(len(chosen), bool)
    for axis, place in zip(axes, places, strict=True):
        found = axis.sources(place).reshape(len(chosen), *[1] * (met.ndim - 1), axis.kernel)
        sources, met = sources[..., None] * axis.size + found, met[..., None] & (found >= 0)
    rows = data.reshape(-1, data.shape[-1])[np.where(met, sources, 0)]
    rows[~met] = 0.0
    return np.asarray(rows.reshape(len(chosen), -1, data.shape[-1]))
