"""A model between named inputs and outputs, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.model.graph import Graph

LITE = ".tflite"
KERAS = frozenset({".h5", ".hdf5", ".keras"})
FROZEN = ".pb"
WHOLE = "is the file whole?"
EXPECTED = "a frozen .pb, a SavedModel folder, a .keras, an .h5 or a .tflite file is expected"
Shape = tuple[int | None, ...]
"""Sizes of a tensor, None where one is open."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an input takes. A dimension of None is open; a shape of None says that not even the rank is known."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape | None

    @property
    def is_single_value(self) -> bool:
        """Whether it takes a single value, and so no data: a scalar, or a bool of unknown shape."""
        return self.shape == () or (self.shape is None and self.dtype.kind == "b")


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What an output gives: the name of its type, and a shape as of an input, as far as they are known."""

    name: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class Fusion:
    """Whether operators take up the batch norms, multiplications and additions behind them, and which do not.

    None where not `enabled`; `skip` names nodes that are not fused. Users name operators with a weight, because a
    record can say it of no other.
    """

    enabled: bool = True
    skip: frozenset[str] = frozenset()

    def allows(self, *names: str) -> bool:
        """Whether nodes of these names may become one."""
        return self.enabled and self.skip.isdisjoint(names)


EVERYTHING = Fusion()


class Program(Protocol):
    """What a float model computes: a `Graph` of TensorFlow, or a `LiteGraph`, the content of a .tflite file."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names under which it is fed."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it computes."""
        ...

    def constant(self, tensor: str) -> Array | None:
        """The value of a tensor that is a constant, or None."""
        ...


@dataclass(frozen=True)
class Front:
    """What comes in front of a model: a graph of TensorFlow that computes inputs of the model from data.

    `inputs` are what the data has, for this graph and for those inputs of the model that it does not compute.
    """

    graph: Graph
    inputs: tuple[InputSpec, ...]


@dataclass(frozen=True)
class Model:
    """A normalized inference model, and what it was made from.

    `name` is the file's stem; `digest` the SHA-256 (hex) of the file's bytes, of a SavedModel those of its graph,
    variables and assets, with their relative names. `notes` say what of the file is another in the model; `ordered`
    that its inputs have the order in which a user gives arrays; `front` computes some of them, where it was cut off.
    """

    name: str
    program: Program = field(repr=False)
    inputs: tuple[InputSpec, ...]
    digest: str
    notes: tuple[str, ...] = ()
    ordered: bool = False
    front: Front | None = field(default=None, repr=False)

    @property
    def data_inputs(self) -> tuple[InputSpec, ...]:
        """What the data of a user must have."""
        return self.inputs if self.front is None else self.front.inputs

    @property
    def graph(self) -> Graph:
        """The graph of TensorFlow. Raises ModelError where the model came as a .tflite file."""
        from autoquant.model.graph import Graph

        if not isinstance(self.program, Graph):
            hint = "give the TensorFlow model that it was converted from, or choose --target litert"
            raise ModelError(self.name, "is a .tflite model, which has no graph of TensorFlow", hint=hint)
        return self.program


def known_constant(program: Program, tensor: str | None) -> Array:
    """The value of a tensor that is known to be a constant."""
    value = None if tensor is None else program.constant(tensor)
    assert value is not None, tensor
    return value


def is_lite(model: str | Path) -> bool:
    """Whether a model is a .tflite, by its name."""
    return Path(model).suffix.lower() == LITE


def check_file(path: str | Path) -> None:
    """Raise ModelError where there is no such file, or it is of no kind that can be opened; loads nothing."""
    path = Path(path)
    if not path.exists():
        raise ModelError(str(path), "there is no such file", hint=EXPECTED)
    suffix = path.suffix.lower()
    if not (path.is_dir() or is_lite(path) or suffix == FROZEN or suffix in KERAS):
        raise ModelError(str(path), f"cannot open a '{path.suffix}' file", hint=EXPECTED)


def one_sample_shapes(
    stated: Mapping[str, Shape | None], given: Mapping[str, tuple[int, ...]]
) -> dict[str, Shape | None]:
    """The shapes of inputs for one sample: those that the file states, with open batches set to 1, joined with `given`.

    A shape in `given` is that of one sample or of a batch, whose size does not count. A size that neither tells stays
    None. Raises ModelError where the two contradict each other, or `given` names what is no input.
    """
    for name in given:
        if name not in stated:
            raise ModelError(name, "a shape is given but this is not an input", hint=f"inputs: {', '.join(stated)}")
    return {name: _joined(name, shape, given.get(name)) for name, shape in stated.items()}


def _joined(name: str, stated: Shape | None, given: tuple[int, ...] | None) -> Shape | None:
    if stated is None:
        return None if given is None else (1, *given[1:])
    if given is None or not stated:
        return tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(stated))
    sample = given if len(given) == len(stated) - 1 else given[1:]
    if len(given) not in (len(stated), len(stated) - 1) or any(
        size not in (None, wanted) for size, wanted in zip(stated[1:], sample, strict=True)
    ):
        hint = "give the sizes that the file leaves open (None), and keep the others"
        raise ModelError(name, f"shape {given} is given but the file says {stated}", hint=hint)
    return (stated[0] or 1, *sample)


def stated_batch(shapes: Mapping[str, Shape | None]) -> int:
    """The batch size where the file fixes it, else 1: the first size of the first input that has several."""
    return next((shape[0] or 1 for shape in shapes.values() if shape is not None and len(shape) > 1), 1)
