"""What an Optuna sampler would choose next, found in a copy of the study in memory.

In the copy every trial of which a drop is known is complete and has a constraint, also one that was stopped early and
is pruned in the study: so every sampler learns from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from autoquant.tuning.study.space import Choice, Parameters
from autoquant.tuning.study.trial import State, Trial


def seeded(seed: int, *more: int) -> int:
    """A seed for one trial: the same whatever process asks."""
    return int(np.random.SeedSequence([seed, *more]).generate_state(1)[0])


def suggest_from_copy(
    trials: Sequence[Trial],
    dimensions: Mapping[str, tuple[Choice, ...]],
    *,
    sampler: BaseSampler,
    max_drop: float,
    noted: bool = False,
) -> Iterator[tuple[Parameters, Mapping[str, Any]]]:
    """Points in these dimensions, one after the other without end, each with what the sampler noted of it.

    With `noted`, it finds there what it noted of earlier trials.
    """
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(own) for name, own in dimensions.items()
    }
    study = optuna.create_study(sampler=sampler)
    for trial in trials:
        shared: dict[str, Any] = {
            "params": {name: trial.parameters[name] for name in dimensions},
            "distributions": distributions,
            "system_attrs": dict(trial.note) if noted else {},
        }
        if trial.state is State.RUNNING:
            study.add_trial(create_trial(state=TrialState.RUNNING, **shared))
        elif trial.drop is not None:
            over = {"drop": trial.drop - max_drop}
            study.add_trial(create_trial(value=trial.objective, constraints=over, **shared))
    while True:
        suggested = study.ask(distributions)
        yield dict(suggested.params), dict(study.get_trials(deepcopy=False)[suggested.number].system_attrs)
