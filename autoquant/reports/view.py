"""What the report of a run shows, section by section, as plain values: the templates only place it."""

from __future__ import annotations

from typing import Any

from autoquant import __version__
from autoquant.reports.command import command_of, in_memory
from autoquant.reports.explanation import explain_trials
from autoquant.reports.run_files import RunFiles
from autoquant.reports.verdict import headline
from autoquant.reports.view_costs import costs_section, effort_section
from autoquant.reports.view_layers import layers_section
from autoquant.reports.view_samples import samples_section
from autoquant.reports.view_trials import drop_section, effects_section, history_section, trade_off_section
from autoquant.reports.words import number
from autoquant.targets.profiles.table import PROFILES, chosen_profile

PICTURES = 24
"""Pictures of samples that are shown where nobody says how many."""


def report_view(run: RunFiles, *, pictures: int = PICTURES) -> dict[str, Any]:
    """All sections of a run in whatever state; a section that nothing is known for is None.

    `pictures` of samples are shown at most.
    """
    terms, trials, best = run.terms, run.trials, run.best
    return {
        **head_view(run),
        "title": run.overview.model if run.overview else str(run.request["model"]).rpartition("/")[2],
        "drop": drop_section(run, terms) if terms and trials else None,
        "trade_off": trade_off_section(run, terms) if terms and trials else None,
        "history": history_section(run, terms) if terms and trials else None,
        "layers": layers_section(run, best) if best else None,
        "effects": effects_section(explain_trials(trials)) if trials else None,
        "samples": samples_section(run, pictures),
        "costs": costs_section(run),
        "effort": effort_section(run),
        "asked": _asked(run),
        "version": __version__,
        "going_on": run.going_on,
    }


def head_view(run: RunFiles) -> dict[str, Any]:
    """The head of it: the verdict, and what it is about."""
    return {
        "headline": headline(run),
        "facts": list(_facts(run)),
        "warnings": list((run.result or {}).get("warnings", ())),
    }


def _facts(run: RunFiles) -> Any:
    """What the run is about, as a line of name and value each."""
    yield "Run", str(run.folder.path)
    terms, overview = run.terms, run.overview
    if terms is not None:
        yield "Target", terms.target
        yield from _device(run)
        yield "FP32", f"{terms.metric} {number(terms.baseline)}"
        yield "Tolerance", f"{run.request.get('tolerance', '')}: a drop of {number(terms.max_drop)} at most"
    if overview is not None:
        holdout = f"{overview.holdout_samples:,} holdout" if overview.holdout_samples else "no holdout"
        kinds = (f"{overview.search_samples:,} search", holdout, f"{overview.calibration_samples:,} calibration")
        yield "Samples", ", ".join(kinds)


def _device(run: RunFiles) -> Any:
    """The device that the model is for, and what is known of it."""
    name = str(run.request.get("profile", ""))
    profile = chosen_profile(name if name in PROFILES else "", integer_only=bool(run.request.get("integer_only")))
    if profile is not None:
        yield "Device", f"{profile.device}: profile {profile.name}, checked {profile.checked}"


def _asked(run: RunFiles) -> dict[str, Any]:
    """The request, digests, versions, and the command that repeats the search."""
    memory = in_memory(run.request)
    certificate = run.trials.certificate if run.trials else None
    digests = [(f"{name}", value) for name, value in run.digests.items()]
    if certificate is not None:
        digests += [("INT8 model", certificate.origin.int8_model), ("holdout", certificate.origin.data)]
    versions = list(run.versions.items())
    if run.overview is not None:
        versions.append(("trials scored on", run.overview.engine))
    if certificate is not None:
        versions.append(("certified on", f"{certificate.origin.engine}, {certificate.origin.kernels}"))
    shown = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in run.request.items()
    }
    return {
        "request": [(name, str(value)) for name, value in shown.items()],
        "digests": digests,
        "versions": [(name, str(value)) for name, value in versions],
        "notes": run.notes,
        "command": "" if memory else command_of(run.request),
        "memory": ", ".join(memory),
    }
