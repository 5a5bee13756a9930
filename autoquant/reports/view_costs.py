"""The sections about costs: latency and size side by side, and what the search took time for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoquant.evaluation.scoring.rows import size_text
from autoquant.pulse import duration
from autoquant.reports.explanation import RunTrials
from autoquant.reports.run_files import RunFiles
from autoquant.reports.words import milliseconds, percent
from autoquant.tuning.phases import TRIALS

LEAST = 0.05
"""Seconds of a phase that nobody looks for."""
OWN = "the search itself"
"""What carried trials out where no worker did."""
OPERATORS = 12
"""Operators whose times are listed, the slowest."""


def costs_section(run: RunFiles) -> dict[str, Any]:
    """Latency and size of FP32 and INT8; sentences for what was not measured."""
    latency, notes = (run.result or {}).get("latency"), []
    models = []
    if latency:
        longest = max(one["seconds"]["upper_quartile"] for one in latency["models"])
        models = [_model(one, longest) for one in latency["models"]]
        notes.append(
            f"Medians of {latency['rounds']} rounds in turns, batch {latency['batch_size']}, {latency['threads']} "
            f"thread{'s' if latency['threads'] != 1 else ''}; whiskers are quartiles. Of this machine, and no other."
        )
        notes += latency["statements"]
        if latency["noise"]:
            notes.append(f"Doubtful: {latency['noise']}.")
    elif run.result is None:
        notes.append("Latency is measured when the search ends.")
    else:
        notes.append("Latency was not measured: the files of this target do not run here, or there was no time.")
    fp32, int8 = run.overview.float_bytes if run.overview else None, run.int8_bytes
    sizes = [(name, size_of(size), size) for name, size in (("FP32", fp32), ("INT8", int8)) if size is not None]
    largest = max((size for _, _, size in sizes), default=1)
    if fp32 and int8:
        notes.append(f"The INT8 file has {percent(int8 / fp32)} of the bytes of the FP32 model.")
    if fp32 is None:
        notes.append("The size of the FP32 model was not kept.")
    if int8 is None:
        notes.append("The file of the best model is not in the folder.")
    return {
        "models": models,
        "sizes": [{"name": name, "text": text, "width": 100 * size / largest} for name, text, size in sizes],
        "operators": list(_operators(latency)) if latency else [],
        "names": [one["name"] for one in latency["models"]] if latency else [],
        "notes": notes,
    }


def size_of(size: int) -> str:
    """Bytes for a person, few of them too."""
    return size_text(size) if size >= 1_000_000 else f"{size / 1000:.1f} kB"


def _model(model: Any, longest: float) -> dict[str, Any]:
    seconds, speed = model["seconds"], model["speed"]["median"]
    return {
        "name": model["name"],
        "text": milliseconds(seconds["median"]),
        "quartiles": f"{milliseconds(seconds['lower_quartile'])} to {milliseconds(seconds['upper_quartile'])}",
        "speed": f"{speed:.2f}x",
        "width": 100 * seconds["median"] / longest,
        "left": 100 * seconds["lower_quartile"] / longest,
        "right": 100 * seconds["upper_quartile"] / longest,
    }


def _operators(latency: Any) -> Iterator[tuple[str, ...]]:
    for one in latency["operators"][:OPERATORS]:
        times = ("-" if second is None else milliseconds(second) for second in one["seconds"])
        yield one["name"], one["operator"], *times


def effort_section(run: RunFiles) -> dict[str, Any]:
    """Time and samples by phase; those of trials by part as well."""
    seconds, samples = dict(run.phases.seconds), run.phases.samples
    parts = dict(run.trials.seconds) if run.trials else {}
    notes = []
    if not seconds:
        seconds = {TRIALS: sum(parts.values())} if parts else {}
        notes.append("Only the times of trials were kept: an earlier version wrote this run, or it has just begun.")
    longest, total = max(seconds.values(), default=0.0) or 1.0, sum(seconds.values())
    rows = []
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        if spent < LEAST and name != TRIALS:
            continue
        count = run.trials.samples if name == TRIALS and run.trials else samples.get(name)
        rows.append(_effort(name, spent, longest, count, part=False))
        if name == TRIALS:
            rows += [_effort(part, each, longest, None, part=True) for part, each in parts.items()]
    hosts = list(_hosts(run.trials)) if run.trials and len(run.trials.hosts) > 1 else []
    return {"rows": rows, "total": duration(total), "hosts": hosts, "notes": notes}


def _hosts(found: RunTrials) -> Iterator[tuple[str, str, str, str]]:
    """The machines with how many trials they carried out, on how many samples, and in what time."""
    for host in (*found.hosts, None):
        trials = [trial for trial in found.trials if trial.host == host]
        if trials:
            seconds = sum(sum(trial.seconds.values()) for trial in trials)
            samples = sum(trial.samples for trial in trials)
            yield host or OWN, f"{len(trials):,}", f"{samples:,}", duration(seconds)


def _effort(name: str, seconds: float, longest: float, samples: int | None, *, part: bool) -> dict[str, Any]:
    width = min(100 * seconds / longest, 100.0)
    count = "" if samples is None else f"{samples:,}"
    return {"name": name, "time": duration(seconds), "width": round(width, 2), "samples": count, "part": part}
