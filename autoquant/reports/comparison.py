"""Several runs beside each other: verdicts, drops, costs and layers, on the same scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoquant import __version__
from autoquant.reports.charts.drop import Measured, drop_chart
from autoquant.reports.run_files import RunFiles
from autoquant.reports.verdict import headline
from autoquant.reports.view_costs import costs_section, size_of
from autoquant.reports.view_layers import layers_section
from autoquant.reports.view_trials import drop_section
from autoquant.reports.words import number, percent, wide_words
from autoquant.tuning.study.trial import Trial

NOT_KNOWN = "not known"


def comparison_view(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Of two runs or more, in whatever state; rows are facts, columns are runs."""
    names = _names(runs)
    return {
        "names": names,
        "headlines": [headline(run) for run in runs],
        "rows": [(what, [fact(run) for run in runs]) for what, fact in FACTS.items()],
        "drops": _drops(runs, names),
        "layers": [layers_section(run, run.best) if run.best else None for run in runs],
        "version": __version__,
    }


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """The folders' names; where two are the same, their whole paths."""
    short = [run.folder.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder.path) for run in runs]


def _drops(runs: Sequence[RunFiles], names: Sequence[str]) -> dict[str, Any] | None:
    """The drops of runs that share metric and tolerance; None where they do not, or have none."""
    terms = [run.terms for run in runs]
    shared = {(one.metric, one.max_drop) for one in terms if one is not None}
    if None in terms or len(shared) != 1 or terms[0] is None:
        return None
    rows: list[Measured] = []
    for run, name, own in zip(runs, names, terms, strict=True):
        chart = drop_section(run, own)["chart"] if own else None
        for row in chart.rows[:2] if chart else ():
            one = row.measured
            rows.append(Measured(f"{name}: {one.name}", one.drop, one.low, one.high, one.shape, one.words))
    if not rows:
        return None
    max_drop = terms[0].max_drop
    return {"chart": drop_chart(rows, max_drop), "max_drop": number(max_drop), "notes": []}


def _of_best(run: RunFiles, fact: str) -> Any:
    best: Trial | None = run.best
    return None if best is None else getattr(best, fact)


def _share(run: RunFiles) -> str:
    share = _of_best(run, "int8_share")
    return NOT_KNOWN if share is None else percent(share)


def _layers(run: RunFiles) -> str:
    if run.best is None:
        return NOT_KNOWN
    return f"{run.best.int8_layers} of {run.best.layers}{wide_words(run.best.int16_layers)}"


def _number(run: RunFiles, fact: str) -> str:
    value = _of_best(run, fact)
    return NOT_KNOWN if value is None else number(value)


def _holdout_drop(run: RunFiles) -> str:
    certificate = run.trials.certificate if run.trials else None
    return NOT_KNOWN if certificate is None else f"{number(certificate.drop)}, {certificate.verdict}"


def _upper_bound(run: RunFiles) -> str:
    certificate = run.trials.certificate if run.trials else None
    if certificate is None:
        return "no certificate"
    return f"{number(certificate.upper_bound)} with {certificate.confidence * 100:g}% confidence"


def _latency(run: RunFiles) -> str:
    models = costs_section(run)["models"]
    return ", ".join(f"{one['name']} {one['text']}" for one in models) or "not measured"


def _sizes(run: RunFiles) -> str:
    fp32, int8 = run.overview.float_bytes if run.overview else None, run.int8_bytes
    known = [f"{name} {size_of(size)}" for name, size in (("FP32", fp32), ("INT8", int8)) if size is not None]
    return ", ".join(known) or NOT_KNOWN


def _term(run: RunFiles, fact: str) -> str:
    value = getattr(run.terms, fact) if run.terms else None
    return NOT_KNOWN if value is None else number(value) if isinstance(value, float) else str(value)


FACTS: Mapping[str, Callable[[RunFiles], str]] = {
    "Target": lambda run: _term(run, "target"),
    "Metric": lambda run: _term(run, "metric"),
    "FP32": lambda run: _term(run, "baseline"),
    "Tolerance, a drop of": lambda run: _term(run, "max_drop"),
    "Layers in INT8": _layers,
    "Share in INT8": _share,
    "INT8, on the search samples": lambda run: _number(run, "score"),
    "Drop there": lambda run: _number(run, "drop"),
    "Drop on the holdout": _holdout_drop,
    "Upper bound there": _upper_bound,
    "Latency": _latency,
    "Size": _sizes,
    "Trials": lambda run: str(len(run.trials.trials)) if run.trials else "0",
    "Samples that trials evaluated": lambda run: f"{run.trials.samples:,}" if run.trials else "0",
}
"""Fact -> how it is written of a run."""
