"""The sections about trials: drop against tolerance, accuracy against share, history, effects of settings."""

from __future__ import annotations

import math
from typing import Any

from autoquant.errors import listed
from autoquant.reports.ablations import Pair
from autoquant.reports.charts.drop import Measured, drop_chart
from autoquant.reports.charts.trials import Mark, history, mark_of, trade_off
from autoquant.reports.explanation import Explanation
from autoquant.reports.run_files import RunFiles
from autoquant.reports.wording import changed, drop_words, figures, interval_words, legend, reasons
from autoquant.reports.words import at_most, counted, number, percent
from autoquant.tuning.certification.certificate import Certificate
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.pareto import pareto_front
from autoquant.tuning.study.trial import State, Terms, Trial

GROUPS = 6
"""Groups of the holdout that are drawn, those with the largest drop."""
MOST_NAMES = 3
"""Layers that are named beside each other."""
WORDS = {Mark.UNDECIDED: "undecided", Mark.FAILED: "failed", Mark.MISSED: "missed"}


def drop_section(run: RunFiles, terms: Terms) -> dict[str, Any]:
    """The best plan's drop on the search samples, on the holdout, and in its groups."""
    best, rows, notes = run.best, list[Measured](), list[str]()
    if best is not None and best.drop is not None:
        exact = best.state is State.DONE
        ends = (best.drop, best.drop) if exact else (best.low, best.high)
        low, high = (None if end is None or math.isinf(end) else end for end in ends)
        count = run.overview.search_samples if run.overview and exact else best.samples
        what = "all samples of the search" if exact else "samples of the search, an estimate"
        words = number(best.drop) if exact else f"about {number(best.drop)}{interval_words(low, high)}"
        rows.append(Measured(f"{count:,} samples: {what}", best.drop, low, high, "circle", words))
        notes.append("The search chose the best plan by its own samples, so its drop there looks better than it is.")
    certificate = run.trials.certificate if run.trials else None
    if certificate is not None:
        rows += _holdout(certificate)
        notes.append(f"The bound is one-sided: {certificate.method}, measured on {certificate.origin.engine}.")
        if len(certificate.guard) > GROUPS:
            notes.append(f"Of {len(certificate.guard)} groups those {GROUPS} with the largest drop are drawn.")
    else:
        known = run.overview.no_holdout if run.overview else ""
        missed = best is not None and not best.meets(terms.max_drop) and run.result is not None
        otherwise = "the search goes on" if run.going_on else "the tolerance was missed before" if missed else ""
        why = (run.result or {}).get("uncertified") or known or otherwise
        notes.append(f"Nothing was measured on a holdout{f': {why}' if why else ''}.")
    return {
        "chart": drop_chart(rows, terms.max_drop) if rows else None,
        "max_drop": number(terms.max_drop),
        "notes": notes,
    }


def _holdout(certificate: Certificate) -> list[Measured]:
    def bounded(name: str, drop: float, upper: float, shape: str) -> Measured:
        high = None if math.isinf(upper) else upper
        return Measured(name, drop, None, high, shape, f"{number(drop)}, {at_most(upper)}")

    confidence = f"{certificate.confidence * 100:g}% confidence"
    name = f"{certificate.samples:,} samples: holdout, {confidence}"
    groups = [
        bounded(f"{group.samples:,} samples: {group.label}", group.drop, group.upper, "square")
        for group in certificate.guard[:GROUPS]
    ]
    return [bounded(name, certificate.drop, certificate.upper_bound, "diamond"), *groups]


def trade_off_section(run: RunFiles, terms: Terms) -> dict[str, Any]:
    """Accuracy against share, and the front in words: what a little more tolerance would buy."""
    assert run.trials is not None
    trials, higher = run.trials.trials, run.overview.higher_is_better if run.overview else True
    chart = trade_off(trials, run.best, baseline=terms.baseline, max_drop=terms.max_drop, higher_is_better=higher)
    steps = [
        {
            "trial": one.number,
            "share": percent(one.int8_share),
            "layers": _plan_words(one),
            "score": number(one.score or 0.0),
            "drop": number(one.drop or 0.0),
            "met": one.meets(terms.max_drop),
        }
        for one in pareto_front(trials)
    ]
    return {"chart": chart, "front": steps, "metric": terms.metric, "beyond": chart.beyond}


def history_section(run: RunFiles, terms: Terms) -> dict[str, Any]:
    """Every trial: why it was proposed, what it showed, and when it stopped."""
    assert run.trials is not None
    trials = run.trials.trials
    samples = run.overview.search_samples if run.overview else 0
    chart = history(trials, run.best, max_drop=terms.max_drop, samples=samples)
    best = run.best.number if run.best else None
    rows = [_row(one, terms, best) for one in trials]
    return {
        "chart": chart,
        "rows": rows,
        "objective": None if terms.objective_name == MACS else terms.objective_name,
        "samples": samples,
        "unended": run.trials.unended,
        "on_hosts": len(run.trials.hosts) > 1,
    }


def _row(trial: Trial, terms: Terms, best: int | None) -> dict[str, Any]:
    mark = mark_of(trial, terms.max_drop)
    interval = "" if trial.state is State.DONE else interval_words(trial.low, trial.high)
    return {
        "number": trial.number,
        "why": trial.why,
        "failure": trial.failure,
        "layers": _plan_words(trial),
        "share": percent(trial.int8_share),
        "objective": percent(trial.objective) if math.isfinite(trial.objective) else "",
        "samples": trial.samples,
        "host": trial.host or "-",
        "drop": drop_words(trial) + interval,
        "verdict": "screened out" if trial.undecided else str(WORDS.get(mark, mark)),
        "mark": mark.name.lower(),
        "best": trial.number == best,
    }


def _nothing_compared(trials: int) -> str:
    if trials == 1:
        return "One trial has no other to be compared with."
    return f"No two of {counted(trials, 'trial')} differ in one setting alone."


def _figures(pair: Pair) -> list[str]:
    """The figures of two trials, with an arrow that a page can have."""
    return [text.replace("->", "→") for text in figures(pair)]


def effects_section(found: Explanation) -> dict[str, Any]:
    """Measured effects of settings and of float layers, and why layers are in float."""
    settings = []
    for one in found.settings:
        words = [changed(change) for change in one.changes]
        after, before = (" and ".join(side) for side in zip(*words, strict=True))
        settings.append((after, before, *_figures(one.pair)))
    objective = found.run.terms.objective_name
    layers = []
    for each in found.float_fallbacks:
        trials = (each.pair.before, each.pair.after)
        costs = [trial.int8_share if objective == MACS else trial.objective for trial in trials]
        layers.append((listed(each.layers, most=MOST_NAMES), " → ".join(map(percent, costs)), *_figures(each.pair)))
    pairs = [one.pair for one in found.settings] + [one.pair for one in found.float_fallbacks]
    lines = list(reasons(found))
    return {
        "settings": settings,
        "layers": layers,
        "layers_are": "Share in INT8" if objective == MACS else objective,
        "legend": list(legend(pairs)),
        "reasons": [(name.strip(), why.strip()) for name, why in zip(lines[1::2], lines[2::2], strict=False)],
        "reasons_title": lines[0] if lines else "",
        "none": _nothing_compared(len(found.run.trials)),
    }


def _plan_words(trial: Trial) -> str:
    """The layers of a trial in INT8, of all, and those with INT16 activations, where there are any."""
    wide = f" + {trial.int16_layers} INT16" if trial.int16_layers else ""
    return f"{trial.int8_layers}/{trial.layers}{wide}"
