"""A model, opened: its inside between named inputs and outputs, whatever file it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoquant.errors import ModelError, UsageError
from autoquant.model.fusion import EVERYTHING, Fusion

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.model.graph import Graph

LITE = ".tflite"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an input takes. A dimension of None is open; a shape of None says that not even the rank is known."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


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


def open_model(
    path: str | Path,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    fusion: Fusion = EVERYTHING,
    signature: str | None = None,
) -> Model:
    """Open a frozen .pb, a SavedModel folder, a .keras, .h5 or .tflite file; raises ModelError where that cannot be.

    `inputs` and `outputs`, with or without ':0', override what a file of TensorFlow says; an input inside the graph
    cuts off all that is before it. Inputs that were found, not asked for, and that no output needs are left out.
    `fusion` says what is joined with the layer before it; raises PlanError where that names what is not there.
    `signature` chooses one of several in a .tflite file, the only kind for which TensorFlow is not loaded.
    """
    path = Path(path)
    if is_lite(path):
        from autoquant.model.litert.load import load_lite

        if inputs or outputs:
            hint = "leave them out; --signature chooses among several"
            raise UsageError("--inputs, --outputs", "are for files of TensorFlow, not for a .tflite", hint=hint)
        return load_lite(path, signature=signature)
    if signature is not None:
        raise UsageError("--signature", "is for .tflite files", hint="choose with --inputs and --outputs")
    from autoquant.model.opening import open_graph

    return open_graph(path, inputs=inputs, outputs=outputs, fusion=fusion)
