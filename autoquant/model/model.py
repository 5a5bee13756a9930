"""A model, opened: its inside between named inputs and outputs, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoquant.errors import ModelError

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.model.graph import Graph

LITE = ".tflite"
Shape = tuple[int | None, ...]
"""Sizes of the dimensions of a tensor; None is open."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an input takes. A dimension of None is open; a shape of None says that not even the rank is known."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class Fusion:
    """Whether operators take up the batch norms, multiplications and additions behind them, and which do not.

    `skip` names nodes that stay apart; users name operators with a weight, because a record can say it of no other.
    """

    enabled: bool = True
    skip: frozenset[str] = frozenset()

    def allows(self, *names: str) -> bool:
        """Whether nodes of these names may become one."""
        return self.enabled and self.skip.isdisjoint(names)


EVERYTHING = Fusion()
"""Fuse all that can be fused."""


class Program(Protocol):
    """The inside of a float model: a `Graph` of TensorFlow, or a `LiteGraph`, the content of a .tflite file."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names under which it is fed."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it computes."""
        ...

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of a tensor that is a constant, or None."""
        ...


@dataclass(frozen=True)
class Model:
    """A normalized inference model, and what it was made from.

    `name` is the file's stem; `digest` the SHA-256 (hex) of the file's bytes, of a SavedModel those of its graph and
    variables, with their relative names.
    """

    name: str
    program: Program
    inputs: tuple[InputSpec, ...]
    digest: str

    @property
    def graph(self) -> Graph:
        """The graph of TensorFlow. Raises ModelError where the model came as a .tflite file."""
        from autoquant.model.graph import Graph

        if not isinstance(self.program, Graph):
            hint = "give the TensorFlow model that it was converted from, or choose --target litert"
            raise ModelError(self.name, "is a .tflite model, which has no graph of TensorFlow", hint=hint)
        return self.program


def is_lite(model: str | Path) -> bool:
    """Whether a model is a .tflite, by its name."""
    return Path(model).suffix.lower() == LITE


def shape_for_one_sample(name: str, stated: Shape | None, given: tuple[int, ...] | None) -> Shape | None:
    """The shape of an input for one sample: as stated, open batches set to 1, other open sizes as given.

    What is given is the shape of one sample or of a batch. A size that neither tells stays None. Raises ModelError
    where the two contradict each other.
    """
    if stated is None:
        return None if given is None else (1, *given[1:])
    if given is None or not stated:
        return tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(stated))
    sample = given if len(given) == len(stated) - 1 else given[1:]
    if len(given) not in (len(stated), len(stated) - 1) or any(
        size not in (None, wanted) for size, wanted in zip(stated[1:], sample, strict=True)
    ):
        raise ModelError(
            name,
            f"shape {given} is given but the file says {stated}",
            hint="give the sizes that the file leaves open (None), and keep the others",
        )
    return (stated[0] or 1, *sample)
