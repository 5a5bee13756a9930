"""`autoquant inspect`: what of a model can be quantized, what it costs, and what cannot, with the reason."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoquant.cli import arguments
from autoquant.cli.output import UNLIMITED, painted, say, terminal_columns
from autoquant.cli.process import import_tensorflow, stdout_for_the_result
from autoquant.cli.words import counted, percent

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from autoquant.api import Inspection
    from autoquant.model.layers import Layer

UNKNOWN = "?"
NUMBERS = ("multiply-adds", "share", "parameters")


def add_arguments(parser: arguments.Parser) -> None:
    """The model."""
    arguments.add_model(parser)
    parser.add_argument("--json", action="store_true", default=False, help="print one JSON object instead of tables")
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Look at the model, and print what is there."""
    asked = {name: getattr(args, name) for name in ("inputs", "outputs") if name in args}
    with stdout_for_the_result():
        import_tensorflow(verbose=args.verbose)
        from autoquant import api

        found = api.inspect(args.model, **asked)
    say(
        json.dumps(facts(found), indent=2, sort_keys=True)
        if args.json
        else text(found, columns=terminal_columns(sys.stdout))
    )
    return 0


def text(found: Inspection, *, columns: int | None) -> str:
    """Tables and totals; where those are wider than `columns`, two lines for every layer."""
    tables = [_layers(found), *_rejected(found)]
    if columns is None or max(map(_width, tables)) <= columns:
        return painted(*_separated([*tables, totals(found)]))
    return painted(*_separated([*_in_two_lines(found), totals(found)]))


def facts(found: Inspection) -> dict[str, Any]:
    """All of it for scripts; what is not known is null, shares are of multiply-adds."""
    model, layers = found.model, found.survey.layers
    return {
        "version": 1,
        "model": model.name,
        "digest": model.digest,
        "inputs": [{"name": spec.name, "dtype": spec.dtype.name, "shape": spec.shape} for spec in model.inputs],
        "outputs": list(model.graph.outputs),
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "weight_shape": layer.weight_shape,
                "output_shape": layer.output_shape,
                "macs": layer.macs,
                "share": share(layer, layers),
                "parameters": layer.parameters,
            }
            for layer in layers
        ],
        "rejected": [{"name": one.name, "op": one.op, "reason": one.reason} for one in found.survey.rejected],
        "macs": total_macs(layers),
        "parameters": sum(layer.parameters for layer in layers),
    }


def total_macs(layers: Sequence[Layer]) -> int | None:
    """Multiply-adds of all layers; None where one is not known."""
    known = [layer.macs for layer in layers if layer.macs is not None]
    return sum(known) if len(known) == len(layers) else None


def share(layer: Layer, layers: Sequence[Layer]) -> float | None:
    """A layer's share of all multiply-adds; None where they are not known."""
    total = total_macs(layers)
    return layer.macs / total if total and layer.macs is not None else None


def totals(found: Inspection) -> str:
    """The last line."""
    layers = found.survey.layers
    parameters = sum(layer.parameters for layer in layers)
    macs = total_macs(layers)
    told = f"{macs:,} multiply-adds" if macs is not None else "multiply-adds not all known"
    return (
        f"{found.model.name}: {counted(len(layers), 'layer')} can be quantized, {told}, {parameters:,} parameters; "
        f"{counted(len(found.survey.rejected), 'operator')} cannot"
    )


def _layers(found: Inspection) -> Table:
    table = _table("layer", "operator", "weight", "output", numbers=NUMBERS)
    for layer in found.survey.layers:
        numbers = _numbers(layer, found.survey.layers)
        table.add_row(layer.name, layer.op, _shape(layer.weight_shape), _shape(layer.output_shape), *numbers)
    return table


def _rejected(found: Inspection) -> list[Table]:
    if not found.survey.rejected:
        return []
    table = _table("not quantizable", "operator", "why")
    for one in found.survey.rejected:
        table.add_row(one.name, one.op, one.reason)
    return [table]


def _in_two_lines(found: Inspection) -> list[str]:
    lines = []
    for layer in found.survey.layers:
        shapes = f"{_shape(layer.weight_shape)} -> {_shape(layer.output_shape)}"
        macs, part, parameters = _numbers(layer, found.survey.layers)
        lines.append(f"{layer.name}\n  {layer.op} {shapes}, {macs} multiply-adds ({part}), {parameters} parameters")
    rejected = [f"{one.name}\n  {one.op}: {one.reason}" for one in found.survey.rejected]
    return ["\n".join(block) for block in (lines, ["not quantizable:", *rejected] if rejected else []) if block]


def _numbers(layer: Layer, layers: Sequence[Layer]) -> tuple[str, str, str]:
    part = share(layer, layers)
    return (
        f"{layer.macs:,}" if layer.macs is not None else UNKNOWN,
        percent(part) if part is not None else UNKNOWN,
        f"{layer.parameters:,}",
    )


def _table(*headings: str, numbers: Sequence[str] = ()) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _separated(parts: Sequence[RenderableType]) -> list[RenderableType]:
    return [line for part in parts for line in (part, "")][:-1]


def _width(table: Table) -> int:
    from rich.console import Console

    return Console(width=UNLIMITED).measure(table).maximum


def _shape(shape: Sequence[int | None] | None) -> str:
    return "x".join(UNKNOWN if size is None else str(size) for size in shape) if shape is not None else UNKNOWN
