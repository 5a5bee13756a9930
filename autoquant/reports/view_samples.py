"""The section about samples: which became wrong or right, by class, and pictures of those that became wrong."""

from __future__ import annotations

from typing import Any

from autoquant.evaluation.scoring.changes import ChangedSample, SampleChanges
from autoquant.reports.png import data_uri
from autoquant.reports.run_files import RunFiles
from autoquant.reports.words import counted, number
from autoquant.tuning.study.trial import State

MOST = 30
"""Rows of a table."""


def samples_section(run: RunFiles, pictures: int) -> dict[str, Any]:
    """At most so many `pictures` are shown; 0 for none."""
    changes, best = run.changes, run.best
    if changes is None:
        return {"missing": _missing(run), "trial": None}
    right = all(one.drop in (1.0, -1.0) for one in changes.changed) and (
        run.terms is None or changes.answers is not None
    )
    worse = [one for one in changes.changed if one.drop > 0]
    shown = [one for one in worse if one.sample in run.pictures][:pictures]
    return {
        "missing": "",
        "trial": best.number if best else None,
        "sentence": _sentence(changes, right=right),
        "classes": [
            {"label": one.label, "samples": one.samples, "worse": one.worse, "better": one.better}
            for one in changes.classes[:MOST]
        ],
        "more_classes": max(len(changes.classes) - MOST, 0),
        "confusions": [
            {"label": one.label, "before": one.before, "after": one.after, "samples": one.samples, "what": _what(one)}
            for one in changes.confusions[:MOST]
        ],
        "more_confusions": max(len(changes.confusions) - MOST, 0),
        "right": right,
        "worst": [_sample(one) for one in worse[:MOST]],
        "pictures": [{**_sample(one), "uri": data_uri(run.pictures[one.sample])} for one in shown],
        "no_pictures": "" if shown or not worse else _no_pictures(run, pictures),
        "worse": changes.worse,
        "listed": len(worse),
    }


def _missing(run: RunFiles) -> str:
    if run.best is None or run.best.state is not State.DONE:
        return "The best trial was not scored on all samples of the search, so the samples that changed are not known."
    if run.overview is None or run.overview.per_sample:
        return "Which samples changed was not kept: an earlier version wrote this run, or the best trial of it."
    return f"{run.overview.terms.metric} has no value for each sample, so no sample can be said to have changed."


def _sentence(changes: SampleChanges, *, right: bool) -> str:
    if not right:
        same = changes.samples - changes.worse - changes.better
        return (
            f"Of {counted(changes.samples, 'sample')} of the search {changes.worse:,} became worse, "
            f"{changes.better:,} better, {same:,} stayed as they were."
        )
    answers = f" INT8 gives another class to {changes.answers:,} in all." if changes.answers is not None else ""
    return (
        f"Of {counted(changes.samples, 'sample')} of the search FP32 had {changes.worse:,} right that INT8 has wrong, "
        f"and {changes.better:,} wrong that INT8 has right.{answers}"
    )


def _what(one: Any) -> str:
    if one.before == one.label:
        return "became wrong"
    return "became right" if one.after == one.label else "wrong in both"


def _sample(one: ChangedSample) -> dict[str, Any]:
    return {
        "sample": one.sample,
        "label": one.label,
        "before": one.before,
        "after": one.after,
        "margin": "" if one.margin is None else f"{one.margin:.3g}",
        "drop": number(one.drop),
    }


def _no_pictures(run: RunFiles, pictures: int) -> str:
    if pictures == 0 or run.request.get("samples") == 0:
        return "No pictures: --samples 0."
    if run.result is None:
        return "Pictures of samples are kept when the search ends."
    return "There are no pictures: the data is no images, or a function that is read in passes."
