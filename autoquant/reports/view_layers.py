"""The section about layers: where each of them is, what it costs and loses, and its settings."""

from __future__ import annotations

from typing import Any

from autoquant.calibration.plan import LayerPlan
from autoquant.model.operators import is_tensor
from autoquant.reports.charts.layers import Place, layer_strip
from autoquant.reports.run_files import RunFiles
from autoquant.reports.wording import layer_settings, model_settings
from autoquant.reports.words import counted, macs, percent
from autoquant.tuning.overview import LayerFacts
from autoquant.tuning.study.trial import Trial


def layers_section(run: RunFiles, best: Trial) -> dict[str, Any]:
    """The layers of the best plan. Without an overview they are those of its config, and costs are not known."""
    layers = run.overview.layers if run.overview else _of_plan(best)
    predicted = run.overview.predicted if run.overview else {}
    total = sum(one.cost for one in layers)
    places = [_place(one, best) for one in layers]
    losses = [
        predicted.get(one.name) if place is not Place.CANNOT else None
        for one, place in zip(layers, places, strict=True)
    ]
    rows = [
        {
            "name": one.name,
            "op": one.op,
            "place": str(place),
            "reason": one.reason,
            "cost": macs(one.cost) if run.overview else "",
            "cost_value": one.cost,
            "share": percent(one.cost / total) if total else "",
            "loss": "" if loss is None else f"{loss:.2g}",
            "loss_value": -1.0 if loss is None else loss,
            "settings": _settings(best.plan.int8.get(one.name)),
        }
        for one, place, loss in zip(layers, places, losses, strict=True)
    ]
    chart = layer_strip([one.cost for one in layers], places, losses)
    counts = {str(place): places.count(place) for place in Place}
    notes = []
    if run.overview is None:
        notes.append("An earlier version wrote this run: what layers cost, and which cannot be INT8, was not kept.")
    if not chart.limits:
        notes.append("The search predicted no losses for the settings of the best plan.")
    between = sorted(best.plan.float_operators or ())
    if between:
        notes.append(f"{counted(len(between), 'operator')} between layers stay in float, as they lose much in INT8.")
    return {
        "chart": chart,
        "rows": rows,
        "unit": run.overview.unit if run.overview else "",
        "counts": counts,
        "limits": [f"{limit:.1g}" for limit in chart.limits],
        "settings": ", ".join([*model_settings(best.plan), *layer_settings(list(best.plan.int8.values()))]),
        "notes": notes,
    }


def _of_plan(best: Trial) -> tuple[LayerFacts, ...]:
    return tuple(LayerFacts(name, "", 1) for name in best.plan.layers if not is_tensor(name))


def _place(layer: LayerFacts, best: Trial) -> Place:
    if layer.reason:
        return Place.CANNOT
    return Place.INT8 if layer.name in best.plan.int8 else Place.FLOAT


def _settings(plan: LayerPlan | None) -> str:
    return "" if plan is None else ", ".join(layer_settings([plan]))
