"""The inputs and outputs of a model, as `autoquant inspect` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoquant.cli.output import Block, Table
from autoquant.evaluation.data.batch import kind_of

if TYPE_CHECKING:
    from autoquant.model.model import Model, OutputSpec

OPEN = "?"
SCALAR = "scalar"


def interface_blocks(model: Model) -> list[Block]:
    """A table of the inputs, and one of the outputs."""
    inputs = [(spec.name, kind_of(spec.dtype), shape_words(spec.shape)) for spec in model.inputs]
    outputs = [(spec.name, spec.dtype, shape_words(spec.shape)) for spec in _outputs(model)]
    return [[Table((kind, "type", "shape"), rows, words=3)] for kind, rows in (("input", inputs), ("output", outputs))]


def interface_facts(model: Model) -> dict[str, Any]:
    """The same for scripts; sizes that are open are null."""
    inputs = [{"name": spec.name, "dtype": kind_of(spec.dtype), "shape": spec.shape} for spec in model.inputs]
    outputs = [{"name": spec.name, "dtype": spec.dtype, "shape": spec.shape} for spec in _outputs(model)]
    return {"inputs": inputs, "outputs": outputs}


def shape_words(shape: Sequence[int | None] | None) -> str:
    """A shape in a cell of a table.

    >>> shape_words((None, 3)), shape_words(()), shape_words(None)
    ('?x3', 'scalar', '?')
    """
    if shape is None:
        return OPEN
    return "x".join(OPEN if size is None else str(size) for size in shape) or SCALAR


def _outputs(model: Model) -> tuple[OutputSpec, ...]:
    from autoquant.model.litert.graph import LiteGraph

    if isinstance(model.program, LiteGraph):
        return model.program.output_specs()
    from autoquant.model.shapes import output_specs

    return output_specs(model.graph)
