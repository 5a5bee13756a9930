"""What the trials of a run tell, put together: what the best plan costs, what bought it, why layers are in float."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoquant.reports.ablations import Bought, Retreat, ranked_pairs, retreats, settings_bought
from autoquant.reports.float_layers import FloatLayer, float_layers
from autoquant.reports.run_trials import RunTrials, read_trials


@dataclass(frozen=True)
class Explanation:
    """A run explained.

    `settings` and `retreats` to float are measured differences between two trials, those first that bought most: of
    each kind the one closest to the best plan. `float_layers` are those of the best plan.
    """

    run: RunTrials
    settings: tuple[Bought, ...]
    retreats: tuple[Retreat, ...]
    float_layers: tuple[FloatLayer, ...]


def explain_run(run: Path) -> Explanation:
    """Read a run, while it goes on or when it is over, and explain it. Raises RunError as `read_trials`."""
    return explained(read_trials(run))


def explained(run: RunTrials) -> Explanation:
    """Explain what was read. Trials that failed are compared with none; without a best, no layer is explained."""
    pairs = ranked_pairs(run.trials, run.best)
    found = () if run.best is None else float_layers(run.trials, run.best, run.terms.max_drop)
    return Explanation(run, tuple(settings_bought(pairs, run.best)), tuple(retreats(pairs, run.best)), found)
