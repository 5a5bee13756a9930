"""The table of `autoquant inspect --sensitivity`, with bars, the most sensitive layer first."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from autoquant.cli.tables import UNKNOWN, Block, Table
from autoquant.cli.words import counted, percent

if TYPE_CHECKING:
    from autoquant.api import Inspection
    from autoquant.tuning.sensitivity.measure import Overview

BAR = 24
"""Characters of the longest bar."""
IMPOSSIBLE = "cannot be calibrated"


def table(found: Inspection) -> Block:
    """A row for each layer, the highest first; nothing without --sensitivity."""
    overview = found.sensitivity
    if overview is None:
        return []
    values = overview.default
    layers = sorted((one for one in found.survey.layers if one.name in values), key=lambda one: -values[one.name])
    shares = {layer.name: overview.share(layer.name) for layer in layers}
    longest = max((share or 0.0 for share in shares.values()), default=0.0)
    rows = []
    for layer in layers:
        value, share = values[layer.name], shares[layer.name]
        shown = f"{value:.3g}" if isfinite(value) else IMPOSSIBLE, UNKNOWN if share is None else percent(share)
        rows.append((layer.name, layer.op, overview.best(layer.name) or UNKNOWN, bar(share or 0.0, longest), *shown))
    return [Table(("layer", "operator", "best range", "", "sensitivity", "share"), rows, words=4), *heading(overview)]


def facts(found: Inspection) -> dict[str, Any]:
    """For scripts: one number for each layer and range algorithm, null where it cannot be calibrated."""
    if found.sensitivity is None:
        return {}
    from autoquant.tuning.sensitivity.measure import SETTINGS

    result = found.sensitivity.found
    layers = {
        name: {setting: value if isfinite(value) else None for setting, value in zip(SETTINGS, values, strict=True)}
        for name, values in result.values.items()
    }
    how = {"method": result.method, "reason": result.reason, "samples": result.samples}
    return {"sensitivity": {**how, "unit": "nats", "layers": layers}}


def heading(overview: Overview) -> list[str]:
    """The meaning of the numbers, and how they were found."""
    found = overview.found
    how = "by gradients" if found.method == "fisher" else "one layer at a time"
    because = [f"as {found.reason}"] if found.reason else []
    return [
        "sensitivity: divergence of the output from FP32's, in nats, when this layer alone is quantized",
        f"with default settings; found {how} on {counted(found.samples, 'sample')}",
        *because,
    ]


def bar(share: float, longest: float) -> str:
    """A bar in proportion to the longest; all but 0 can be seen.

    >>> bar(0.5, 1.0), bar(0.0, 1.0), bar(1e-9, 1.0)
    ('############', '', '#')
    """
    return "#" * max(1, round(BAR * share / longest)) if share else ""
