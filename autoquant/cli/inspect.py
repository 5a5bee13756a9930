"""`autoquant inspect`: the layers of a model with their cost, and what cannot be quantized, with the reason."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoquant.cli import arguments
from autoquant.cli.interface import OPEN, interface_blocks, interface_facts, shape_words
from autoquant.cli.output import Block, Table, page, say, terminal_columns
from autoquant.cli.process import working
from autoquant.cli.profile_fit import fit_blocks, fit_facts
from autoquant.errors import UsageError
from autoquant.evaluation.engines.engine import fixed_batch
from autoquant.formats.codec import encode, json_text
from autoquant.messages import UNKNOWN
from autoquant.model.model import is_lite
from autoquant.reports.words import counted, percent
from autoquant.tuning.study.model_request import DataRequest, InspectRequest

if TYPE_CHECKING:
    from autoquant.model.layer import Layer, Survey
    from autoquant.tuning.inspection import Inspection

OPTIONAL = "not quantized by default"
HOW = "to quantize these, add an override to a search space, or tensor_quantize to config.json"
MOST_TENSORS = 8
"""Inputs not quantized by default that are shown; --json has all."""
BAR = 24
"""Characters of the longest bar of a sensitivity."""
IMPOSSIBLE = "cannot be calibrated"
MOST_REJECTED = 20
"""Operators that cannot be quantized that are shown; --json has all."""
BEYOND = "beyond INT8"


def add_arguments(parser: arguments.Parser) -> None:
    """The model and the target."""
    arguments.add_model(parser)
    arguments.add_target(parser)
    group = parser.add_argument_group("sensitivity")
    what = "how much each layer changes the output when it alone is quantized; needs --calibration"
    arguments.add(group, {"--sensitivity": what}, default=False)
    arguments.add(group, {"--calibration DATA": "samples; labels are not needed"})
    arguments.add_reading(parser, labels=False)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the layers of the model."""
    _check_sensitivity(args, arguments.options_for(args, DataRequest))
    request = InspectRequest(**arguments.options_for(args, InspectRequest))
    request.check_named()
    with working(args, tensorflow=not is_lite(args.model)) as listener:
        from autoquant.tuning.inspection import inspect_model

        found = inspect_model(request, listener)
    say(json_text(facts(found)) if args.json else text(found, columns=terminal_columns(sys.stdout)))
    return 0


def _check_sensitivity(args: argparse.Namespace, reading: Mapping[str, Any]) -> None:
    """Raise UsageError where data are needed but missing, or there but not needed."""
    if args.sensitivity and "calibration" not in reading:
        raise UsageError("--sensitivity", "needs samples to run the model on", hint="give --calibration DATA")
    if reading and not args.sensitivity:
        option = f"--{next(iter(reading)).replace('_', '-')}"
        raise UsageError(option, "is for --sensitivity alone", hint="give that too, or leave it out")


def text(found: Inspection, *, columns: int | None) -> str:
    """Tables and totals; a table that is wider than `columns` becomes paragraphs."""
    blocks = [part(found) for part in (_layers, _tensors, _rejected, _sensitivity, _between, _wide)]
    ends = [*interface_blocks(found.model), _totals(found), _notes(found)]
    return page([*blocks, *fit_blocks(found.fit, total_macs(found.survey)), *ends], columns=columns)


def facts(found: Inspection) -> dict[str, Any]:
    """Everything for scripts; what is not known is null, shares are of multiply-adds."""
    model, layers = found.model, found.survey.layers
    operators = _operators(found)
    return {
        "version": 1,
        "model": model.name,
        "digest": model.digest,
        **interface_facts(model),
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "weight_shape": layer.weight_shape if layer.weight else None,
                "output_shape": layer.output_shape,
                "macs": layer.macs,
                "share": share(layer, found.survey),
                "parameters": layer.parameters,
            }
            | ({"litert": operators[layer.name]} if layer.name in operators else {})
            for layer in layers
        ],
        "tensors": [{"name": one.name, "op": one.op, "reads": one.activations[0]} for one in found.survey.tensors],
        "rejected": [
            {"name": one.name, "op": one.op, "reason": one.reason, "macs": one.macs} for one in found.survey.rejected
        ],
        "macs": total_macs(found.survey),
        "parameters": sum(layer.parameters for layer in layers),
        "notes": list(model.notes),
        **_sensitivity_facts(found),
        **fit_facts(found.fit, total_macs(found.survey)),
    }


def total_macs(survey: Survey) -> int | None:
    """Multiply-adds of the model, of operators that cannot be INT8 too; None where one is not known."""
    every = [*(layer.macs for layer in survey.layers), *(one.macs for one in survey.rejected)]
    known = [macs for macs in every if macs is not None]
    return sum(known) if len(known) == len(every) else None


def share(layer: Layer, survey: Survey) -> float | None:
    """A layer's share of all multiply-adds; None where they are not known."""
    total = total_macs(survey)
    return layer.macs / total if total and layer.macs is not None else None


def totals(found: Inspection) -> str:
    """The last line: how many layers, and their cost."""
    layers = found.survey.layers
    parameters = sum(layer.parameters for layer in layers)
    macs, others = total_macs(found.survey), any(one.computes for one in found.survey.rejected)
    own = sum(layer.macs or 0 for layer in layers)
    cost = "multiply-adds not all known" if macs is None else f"{macs:,} multiply-adds"
    if macs and others:
        cost = f"with {own:,} of {macs:,} multiply-adds ({percent(own / macs)})"
    return (
        f"{found.model.name}: {counted(len(layers), 'layer')} can be quantized, {cost}, {parameters:,} parameters; "
        f"{counted(len(found.survey.rejected), 'operator')} cannot"
    )


def _totals(found: Inspection) -> Block:
    """The totals, and behind them what a batch that a .tflite fixes means, and what is in front of it."""
    from autoquant.model.litert.graph import LiteGraph

    lite = found.model.program
    shapes = [lite.shape_of(index) for index in lite.subgraph.inputs] if isinstance(lite, LiteGraph) else []
    batch, front = fixed_batch(shapes), found.model.front
    told = [totals(found)]
    if batch is not None:
        together = "one by one" if batch == 1 else f"{batch} at once"
        told.append(f"the batch of the .tflite is fixed at {batch}: samples are run {together}")
    if front is not None:
        made, given = ", ".join(front.graph.outputs), ", ".join(front.graph.inputs)
        told.append(f"in front of the .tflite TensorFlow makes {made} of {given}")
    return told


def _notes(found: Inspection) -> Block:
    return [f"note: {note}" for note in found.model.notes]


def _operators(found: Inspection) -> Mapping[str, dict[str, Any]]:
    """The operator of a .tflite that each layer became: its kind, its place among all, and the tensor that it makes.

    Empty where nothing was converted.
    """
    from autoquant.model.litert.graph import LiteGraph

    lite, parts = found.model.program, ("kind", "index", "result")
    if not isinstance(lite, LiteGraph):
        return {}
    return {layer.name: dict(zip(parts, lite.operator(layer.name), strict=True)) for layer in found.survey.layers}


def _layers(found: Inspection) -> Block:
    operators = _operators(found)
    rows = []
    for layer in found.survey.layers:
        part = share(layer, found.survey)
        rows.append(
            [
                layer.name,
                layer.op,
                *(["{kind} {index}".format(**operators[layer.name])] if operators else []),
                shape_words(layer.weight_shape) if layer.weight else UNKNOWN,
                shape_words(layer.output_shape),
                OPEN if layer.macs is None else f"{layer.macs:,}",
                OPEN if part is None else percent(part),
                f"{layer.parameters:,}",
            ]
        )
    words = ["layer", "operator", *(["in LiteRT"] if operators else []), "weight", "output"]
    return [Table([*words, "multiply-adds", "share", "parameters"], rows, words=len(words))] if rows else []


def _tensors(found: Inspection) -> Block:
    tensors = found.survey.tensors
    if not tensors:
        return []
    left = len(tensors) - MOST_TENSORS
    more = [f"... and {left} more, which --json lists"] if left > 0 else []
    return [Table((OPTIONAL, "operator"), [(one.name, one.op) for one in tensors[:MOST_TENSORS]]), *more, HOW]


def _rejected(found: Inspection) -> Block:
    """Those that compute first, with what they compute."""
    rejected = sorted(found.survey.rejected, key=lambda one: not one.computes)
    if not rejected:
        return []
    rows = [
        (one.name, one.op, one.reason, OPEN if one.macs is None else f"{one.macs:,}" if one.macs else UNKNOWN)
        for one in rejected[:MOST_REJECTED]
    ]
    columns = 4 if rejected[0].computes else 3
    left = len(rejected) - len(rows)
    more = [f"... and {left} more, which --json lists"] if left > 0 else []
    head = ("not quantizable", "operator", "reason", "multiply-adds")
    return [Table(head[:columns], [row[:columns] for row in rows], words=3), *more]


def _sensitivity(found: Inspection) -> Block:
    """A row for each layer, the highest first, and the meaning of the numbers; nothing without --sensitivity."""
    overview = found.sensitivity
    if overview is None:
        return []
    values, rows = overview.default, []
    layers = sorted((one for one in found.survey.layers if one.name in values), key=lambda one: -values[one.name])
    shares = [overview.share(layer.name) for layer in layers]
    longest = max((share or 0.0 for share in shares), default=0.0)
    for layer, share in zip(layers, shares, strict=True):
        drawn = bar(share or 0.0, longest)
        value = f"{values[layer.name]:.3g}" if math.isfinite(values[layer.name]) else IMPOSSIBLE
        part = UNKNOWN if share is None else percent(share)
        rows.append((layer.name, layer.op, overview.best(layer.name) or UNKNOWN, drawn, value, part))
    measured = overview.found
    how = "by gradients" if measured.method == "fisher" else "one layer at a time"
    return [
        Table(("layer", "operator", "best range", "", "sensitivity", "share"), rows, words=4),
        "sensitivity: divergence of the output from FP32's, in nats, when this layer alone is quantized",
        f"with default settings; found {how} on {counted(measured.samples, 'sample')}",
        *([f"as {measured.reason}"] if measured.reason else []),
    ]


def _between(found: Inspection) -> Block:
    """What operators between layers lose in INT8, the most first, and which stay in float; only where any does."""
    between = found.between
    if between is None or not between.float_operators:
        return []
    losses = sorted(between.operators.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [
        (name, f"{loss:.3g}" if math.isfinite(loss) else BEYOND, "float" if name in between.float_operators else "")
        for name, loss in losses[: max(MOST_TENSORS, len(between.float_operators))]
    ]
    left = len(losses) - len(rows)
    more = [f"... and {left} more, which --json lists"] if left > 0 else []
    return [Table(("between layers", "sensitivity", "stays in"), rows, words=1), *more]


def _wide(found: Inspection) -> Block:
    """Ranges that a few calibration values decide; only where there are any."""
    wide = found.sensitivity.wide if found.sensitivity else ()
    ends = ((one.low, one.high, one.usual_low, one.usual_high) for one in wide)
    rows = [(one.where, *(f"{end:.4g}" for end in each)) for one, each in zip(wide, ends, strict=True)]
    head = ("range by few values", "lowest", "highest", "99.99% from", "to")
    return [Table(head, rows, words=1)] if rows else []


def _sensitivity_facts(found: Inspection) -> dict[str, Any]:
    """For scripts: one number for each layer and range algorithm, null where it cannot be calibrated."""
    if found.sensitivity is None:
        return {}
    from autoquant.tuning.sensitivity.measure import SETTINGS

    result, layers = found.sensitivity.found, {}
    for name, values in result.values.items():
        known = (value if math.isfinite(value) else None for value in values)
        layers[name] = dict(zip(SETTINGS, known, strict=True))
    how = {"method": result.method, "reason": result.reason, "samples": result.samples}
    facts: dict[str, Any] = {"sensitivity": {**how, "unit": "nats", "layers": layers}}
    facts["wide_ranges"] = encode(found.sensitivity.wide)
    if found.between is not None:
        operators = {name: loss if math.isfinite(loss) else None for name, loss in found.between.operators.items()}
        facts["between"] = {"operators": operators, "float_operators": sorted(found.between.float_operators)}
    return facts


def bar(share: float, longest: float) -> str:
    """A bar in proportion to the longest; all but 0 can be seen.

    >>> bar(0.5, 1.0), bar(0.0, 1.0), bar(1e-9, 1.0)
    ('############', '', '#')
    """
    return "#" * max(1, round(BAR * share / longest)) if share else ""
