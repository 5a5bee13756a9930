"""What an Optuna sampler would choose next, found in a copy of the study in memory.

In the copy every trial of which a drop is known is complete and has a constraint, also one that was stopped early and
is pruned in the study: so every sampler learns from it. Nothing in the study changes until a point is enqueued there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from autoquant.tuning.sampling.history import Past
from autoquant.tuning.study.space import Choice, Parameters

KEPT = "sampler"
"""Attribute of a trial: what the sampler noted of it in the copy, and wants to find there again."""


def seeded(seed: int, *more: int) -> int:
    """A seed for one trial: the same whatever process asks."""
    return int(np.random.SeedSequence([seed, *more]).generate_state(1)[0])


def suggestions(
    past: Sequence[Past],
    dimensions: Mapping[str, tuple[Choice, ...]],
    *,
    sampler: BaseSampler,
    allowed: float,
    notes: Mapping[int, Mapping[str, Any]] | None = None,
) -> Iterator[tuple[Parameters, Mapping[str, Any]]]:
    """Points in these dimensions, one after the other without end, each with what the sampler noted of it.

    `notes` are what it noted of earlier trials, by number.
    """
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(own) for name, own in dimensions.items()
    }
    study = optuna.create_study(sampler=sampler)
    for trial in past:
        shared: dict[str, Any] = {
            "params": {name: trial.parameters[name] for name in dimensions},
            "distributions": distributions,
            "system_attrs": dict((notes or {}).get(trial.number, {})),
        }
        if trial.pending:
            study.add_trial(create_trial(state=TrialState.RUNNING, **shared))
        elif trial.state != "failed" and trial.drop is not None:
            over = {"drop": trial.drop - allowed}
            study.add_trial(create_trial(value=trial.objective, constraints=over, **shared))
    while True:
        asked = study.ask(distributions)
        yield dict(asked.params), dict(study.get_trials(deepcopy=False)[asked.number].system_attrs)
