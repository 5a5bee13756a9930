"""`autoquant inspect`: what of a model can be quantized, what it costs, and what cannot, with the reason."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from autoquant.cli import arguments, sensitivity
from autoquant.cli.output import UNLIMITED, painted, plain_table, say, terminal_columns
from autoquant.cli.process import import_tensorflow, needs_tensorflow, stdout_for_the_result
from autoquant.cli.words import counted, percent
from autoquant.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autoquant.api import Inspection
    from autoquant.model.layer import Layer

UNKNOWN = "?"
NOTHING = "-"
ASKED_FOR = "quantized only where asked for"
HOW = "ask by an override in a search space, or by tensor_quantize in config.json"
MOST_TENSORS = 8
"""So many inputs that are quantized only where asked for are shown; --json has all."""
NUMBERS = ("multiply-adds", "share", "parameters")


def add_arguments(parser: arguments.Parser) -> None:
    """The model, and for which target it is looked at."""
    arguments.add_model(parser)
    arguments.add_target(parser)
    group = parser.add_argument_group("sensitivity")
    group.add_argument(
        "--sensitivity",
        action="store_true",
        default=False,
        help="how much each layer changes the output when it alone is quantized; needs --calibration",
    )
    group.add_argument("--calibration", metavar="DATA", help="samples; labels are not needed")
    arguments.add_reading(parser, labels=False)
    parser.add_argument("--json", action="store_true", default=False, help="print one JSON object instead of tables")
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Look at the model, and print what is there."""
    from autoquant.tuning.study.choices import check_target
    from autoquant.tuning.study.request import DataRequest

    asked = {name: getattr(args, name) for name in ("inputs", "outputs", "target", "signature") if name in args}
    reading = arguments.given(args, DataRequest)
    _check_sensitivity(args, reading)
    if "target" in asked:
        check_target(args.model, target=asked["target"])
    with stdout_for_the_result():
        if needs_tensorflow(args.model):
            import_tensorflow(verbose=args.verbose)
        from autoquant import api

        found = api.inspect(args.model, **asked, **reading)
    say(
        json.dumps(facts(found), indent=2, sort_keys=True)
        if args.json
        else text(found, columns=terminal_columns(sys.stdout))
    )
    return 0


def _check_sensitivity(args: argparse.Namespace, reading: Mapping[str, Any]) -> None:
    """Raise UsageError where data are needed but not given, or given but not needed."""
    if args.sensitivity and "calibration" not in reading:
        raise UsageError("--sensitivity", "needs samples to run the model on", hint="give --calibration DATA")
    if reading and not args.sensitivity:
        option = f"--{next(iter(reading)).replace('_', '-')}"
        raise UsageError(option, "is for --sensitivity alone", hint="give that too, or leave it away")


def text(found: Inspection, *, columns: int | None) -> str:
    """Tables and totals; where those are wider than `columns`, two lines for every layer."""
    tables = [_layers(found), _tensors(found), _rejected(found)]
    wide = [*tables, sensitivity.table(found)]
    fits = columns is None or max(_width(part) for table in wide for part in table) <= columns
    shown = sensitivity.table(found) if fits else sensitivity.lines(found)
    return painted(*_separated([*(tables if fits else _in_two_lines(found)), shown, [totals(found)]]))


def facts(found: Inspection) -> dict[str, Any]:
    """All of it for scripts; what is not known or not there is null, shares are of multiply-adds."""
    model, layers = found.model, found.survey.layers
    operators = _operators(found)
    return {
        "version": 1,
        "model": model.name,
        "digest": model.digest,
        "inputs": [{"name": spec.name, "dtype": spec.dtype.name, "shape": spec.shape} for spec in model.inputs],
        "outputs": list(model.program.outputs),
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "weight_shape": layer.weight_shape if layer.weight else None,
                "output_shape": layer.output_shape,
                "macs": layer.macs,
                "share": share(layer, layers),
                "parameters": layer.parameters,
            }
            | ({"litert": asdict(operators[layer.name])} if layer.name in operators else {})
            for layer in layers
        ],
        "tensors": [{"name": one.name, "op": one.op, "reads": one.activations[0]} for one in found.survey.tensors],
        "rejected": [{"name": one.name, "op": one.op, "reason": one.reason} for one in found.survey.rejected],
        "macs": total_macs(layers),
        "parameters": sum(layer.parameters for layer in layers),
        **sensitivity.facts(found),
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


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator of a .tflite that a layer became: its kind, its place among all, and the tensor that it makes."""

    kind: str
    index: int
    result: str

    def __str__(self) -> str:
        return f"{self.kind} {self.index}"


def _operators(found: Inspection) -> Mapping[str, Operator]:
    """What each layer became; empty where nothing was converted."""
    from autoquant.model.litert.graph import LiteGraph

    lite = found.model.program
    if not isinstance(lite, LiteGraph):
        return {}
    return {layer.name: Operator(*lite.operator(layer.name)) for layer in found.survey.layers}


def _layers(found: Inspection) -> list[RenderableType]:
    operators = _operators(found)
    table = plain_table("layer", "operator", *(["in LiteRT"] if operators else []), "weight", "output", numbers=NUMBERS)
    for layer in found.survey.layers:
        kinds = [layer.op, *([str(operators[layer.name])] if operators else [])]
        numbers = _numbers(layer, found.survey.layers)
        table.add_row(layer.name, *kinds, _weight(layer), _shape(layer.output_shape), *numbers)
    return [table]


def _tensors(found: Inspection) -> list[RenderableType]:
    if not found.survey.tensors:
        return []
    table = plain_table(ASKED_FOR, "operator")
    for one in found.survey.tensors[:MOST_TENSORS]:
        table.add_row(one.name, one.op)
    return [table, *_left_out(found), HOW]


def _left_out(found: Inspection) -> list[str]:
    left = len(found.survey.tensors) - MOST_TENSORS
    return [f"... and {left} more, which --json lists"] if left > 0 else []


def _rejected(found: Inspection) -> list[RenderableType]:
    if not found.survey.rejected:
        return []
    table = plain_table("not quantizable", "operator", "why")
    for one in found.survey.rejected:
        table.add_row(one.name, one.op, one.reason)
    return [table]


def _in_two_lines(found: Inspection) -> list[list[str]]:
    lines = []
    operators = _operators(found)
    for layer in found.survey.layers:
        kind = f"{layer.op}, {operators[layer.name]}" if operators else layer.op
        weight = f"{kind} {_weight(layer)}" if layer.weight else kind
        macs, part, parameters = _numbers(layer, found.survey.layers)
        shapes = f"{weight} -> {_shape(layer.output_shape)}"
        lines.append(f"{layer.name}\n  {shapes}, {macs} multiply-adds ({part}), {parameters} parameters")
    rejected = [f"{one.name}\n  {one.op}: {one.reason}" for one in found.survey.rejected]
    asked = [f"{one.name} ({one.op})" for one in found.survey.tensors[:MOST_TENSORS]]
    return [
        lines,
        [f"{ASKED_FOR}:", *asked, *_left_out(found), HOW] if asked else [],
        ["not quantizable:", *rejected] if rejected else [],
    ]


def _numbers(layer: Layer, layers: Sequence[Layer]) -> tuple[str, str, str]:
    part = share(layer, layers)
    return (
        f"{layer.macs:,}" if layer.macs is not None else UNKNOWN,
        percent(part) if part is not None else UNKNOWN,
        f"{layer.parameters:,}",
    )


def _separated(blocks: Sequence[Sequence[RenderableType]]) -> list[RenderableType]:
    return [line for block in blocks if block for line in (*block, "")][:-1]


def _width(part: RenderableType) -> int:
    from rich.console import Console

    return Console(width=UNLIMITED).measure(part).maximum


def _weight(layer: Layer) -> str:
    return _shape(layer.weight_shape) if layer.weight else NOTHING


def _shape(shape: Sequence[int | None] | None) -> str:
    return "x".join(UNKNOWN if size is None else str(size) for size in shape) if shape is not None else UNKNOWN
