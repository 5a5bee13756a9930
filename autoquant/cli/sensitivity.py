"""What `autoquant inspect --sensitivity` shows: a table and a bar chart, the most sensitive layer first."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from autoquant.cli.output import plain_table
from autoquant.cli.words import counted, percent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autoquant.api import Inspection
    from autoquant.model.layer import Layer
    from autoquant.tuning.sensitivity.overview import Overview

BAR = 24
"""Characters of a bar that is as long as can be."""
NOTHING = "-"
IMPOSSIBLE = "cannot be calibrated"


def table(found: Inspection) -> list[RenderableType]:
    """A row for each layer; nothing where sensitivities were not asked for."""
    overview = found.sensitivity
    if overview is None:
        return []
    rows = plain_table("layer", "operator", "best range", numbers=("sensitivity", "share"))
    rows.add_column("", no_wrap=True)
    longest = max((overview.share(layer.name) or 0.0 for layer in _ranked(found, overview)), default=0.0)
    for layer in _ranked(found, overview):
        drawn = bar(overview.share(layer.name) or 0.0, longest)
        rows.add_row(layer.name, layer.op, overview.best(layer.name) or NOTHING, *_numbers(overview, layer), drawn)
    return [rows, *heading(overview)]


def lines(found: Inspection) -> list[RenderableType]:
    """The same for narrow screens: two lines for each layer."""
    overview = found.sensitivity
    if overview is None:
        return []
    told: list[RenderableType] = [*heading(overview)]
    for layer in _ranked(found, overview):
        value, share = _numbers(overview, layer)
        best = overview.best(layer.name)
        numbers = f"{value} ({share}), best with {best}" if best else value
        told.append(f"{layer.name}\n  {layer.op}: {numbers}")
    return told


def facts(found: Inspection) -> dict[str, Any]:
    """For scripts: one number for each layer and range algorithm, null where it cannot be calibrated."""
    overview = found.sensitivity
    if overview is None:
        return {}
    from autoquant.tuning.sensitivity.overview import SETTINGS

    layers = {
        name: {setting: value if isfinite(value) else None for setting, value in zip(SETTINGS, values, strict=True)}
        for name, values in overview.found.values.items()
    }
    told = {"method": overview.found.method, "reason": overview.found.reason, "samples": overview.found.samples}
    return {"sensitivity": {**told, "unit": "nats", "layers": layers}}


def heading(overview: Overview) -> list[str]:
    """What the numbers are, in sentences."""
    found = overview.found
    how = "by gradients" if found.method == "fisher" else "one layer at a time"
    because = [f"as {found.reason}"] if found.reason else []
    return [
        "sensitivity: how far the output goes, in nats, when this layer alone is quantized",
        f"with default settings; found {how} on {counted(found.samples, 'sample')}",
        *because,
    ]


def bar(share: float, longest: float) -> str:
    """A bar as long as its share of the longest; all but 0 can be seen.

    >>> bar(0.5, 1.0), bar(0.0, 1.0), bar(1e-9, 1.0)
    ('############', '', '#')
    """
    return "#" * max(1, round(BAR * share / longest)) if share else ""


def _ranked(found: Inspection, overview: Overview) -> Sequence[Layer]:
    """The layers that have a sensitivity, the highest first."""
    known = [layer for layer in found.survey.layers if layer.name in overview.default]
    return sorted(known, key=lambda layer: -overview.default[layer.name])


def _numbers(overview: Overview, layer: Layer) -> tuple[str, str]:
    value, share = overview.default[layer.name], overview.share(layer.name)
    return f"{value:.3g}" if isfinite(value) else IMPOSSIBLE, NOTHING if share is None else percent(share)
