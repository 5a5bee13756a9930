"""A run explained from its trials: the best plan and its cost, the effect of settings, why layers are in float."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.formats.codec import encode
from autoquant.reports.ablations import (
    FloatFallbackEffect,
    SettingEffect,
    float_fallback_effects,
    ranked_pairs,
    setting_effects,
)
from autoquant.reports.float_layers import FloatLayer, float_layers
from autoquant.reports.run_trials import RunTrials, read_trials


@dataclass(frozen=True)
class Explanation:
    """A run explained.

    `settings` and `float_fallbacks` are measured differences between two trials, the largest first: of each kind the
    one closest to the best plan. `float_layers` are those of the best plan.
    """

    run: RunTrials
    settings: tuple[SettingEffect, ...]
    float_fallbacks: tuple[FloatFallbackEffect, ...]
    float_layers: tuple[FloatLayer, ...]

    def facts(self) -> dict[str, Any]:
        """What `explain --json` prints. Drops are in units of the metric; what is not known is null."""
        run = self.run
        return {
            "version": 1,
            "run": str(run.run),
            **encode(run.terms),
            "best": run.best.facts() if run.best else None,
            "certificate": run.certificate.facts() if run.certificate else None,
            "trials": len(run.trials),
            "unended_trials": run.unended,
            "evaluated_samples": run.samples,
            "seconds": dict(run.seconds),
            "settings": [one.facts() for one in self.settings],
            "float_fallbacks": [one.facts() for one in self.float_fallbacks],
            "float_layers": [one.facts() for one in self.float_layers],
        }


def explain_run(run: Path) -> Explanation:
    """Read a run, while it goes on or when it is over, and explain it. Raises RunError as `read_trials`."""
    return explain_trials(read_trials(run))


def explain_trials(run: RunTrials) -> Explanation:
    """Explain what was read. Trials that failed are compared with none; without a best, no layer is explained."""
    pairs = ranked_pairs(run.trials, run.best)
    in_float = () if run.best is None else float_layers(run.trials, run.best, run.terms.max_drop)
    settings, fallbacks = setting_effects(pairs, run.best), float_fallback_effects(pairs, run.best)
    return Explanation(run, tuple(settings), tuple(fallbacks), in_float)
