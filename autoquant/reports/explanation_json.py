"""What `explain --json` prints: one object of what a run found out."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from autoquant.reports.ablations import Pair
from autoquant.reports.explanation import Explanation


def explanation_facts(found: Explanation) -> dict[str, Any]:
    """The object. Drops are in units of the metric, `gain` is by how much one became smaller; the unknown is null.

    Of settings that were changed together `changes` has several; `layers` of a change are those it was made in, none
    for a setting of the whole plan.
    """
    run = found.run
    return {
        "version": 1,
        "run": str(run.run),
        **asdict(run.terms),
        "best": run.best.facts() if run.best else None,
        "certificate": run.certificate.facts() if run.certificate else None,
        "trials": len(run.trials),
        "unended_trials": run.unended,
        "evaluated_samples": run.samples,
        "seconds": dict(run.seconds),
        "settings": [
            {
                "changes": [
                    {"setting": one.setting, "before": one.before, "after": one.after, "layers": list(one.layers)}
                    for one in bought.changes
                ],
                **_pair_facts(bought.pair),
            }
            for bought in found.settings
        ],
        "retreats": [{"layers": list(one.layers), **_pair_facts(one.pair)} for one in found.retreats],
        "float_layers": [
            {
                "layer": one.name,
                "why": one.why.value,
                "trial": one.trial.facts() if one.trial else None,
                "without": list(one.without),
                "beside": list(one.beside),
                "same_settings": one.alike,
            }
            for one in found.float_layers
        ],
    }


def _pair_facts(pair: Pair) -> dict[str, Any]:
    gain = pair.gain
    ends = {"low": gain.low, "high": gain.high} if gain else {}
    known = {name: end if math.isfinite(end) else None for name, end in ends.items()}
    return {
        "before": pair.before.facts(),
        "after": pair.after.facts(),
        "divergence": asdict(pair.divergence) if pair.divergence else None,
        "gain": {"estimate": gain.estimate, **known} if gain else None,
    }
