"""A copy of a study in memory, in which the samplers of Optuna choose points."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoquant.tuning.sampling.coding import unchanged
from autoquant.tuning.sampling.problem import Choices
from autoquant.tuning.study.journal import unannounced
from autoquant.tuning.study.space import Parameters
from autoquant.tuning.study.trial import State, Trial

Space = dict[str, BaseDistribution]
"""Dimension -> its choices, as Optuna has them."""


class _Shared(CategoricalDistribution):
    """Choices that all trials of a copied study share: nothing changes them, and to copy and compare them takes long.

    A study copies each trial that it is given.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__


class Tpe(TPESampler):
    """TPE in a space that is known: to find out which dimensions all trials have takes as long as to model them."""

    def __init__(self, space: Space, *, seed: int, startup: int = 10) -> None:
        super().__init__(seed=seed, multivariate=True, n_startup_trials=startup)
        self._space = dict(sorted(space.items()))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        """All of it."""
        return self._space


class _Memory(InMemoryStorage):
    """A study in memory whose last trials can be forgotten; to copy all others again takes longer than to sample."""

    def forget(self, kept: int) -> None:
        """Forget all trials but the first so many, and what was derived from them."""
        for own in self._studies.values():
            del own.trials[kept:]
            own.best_trial_id = None
            own.system_attrs.clear()

    def settle(self, trial_id: int, point: Parameters, space: Space) -> FrozenTrial:
        """A running trial once it has all its parameters."""
        trial = self._get_trial(trial_id)
        trial.params, trial.distributions = dict(point), space
        return trial


class StudyCopy:
    """A copy of a study in memory, from which samplers of Optuna choose points.

    In it every trial of which a drop is known is complete and has a constraint, also one that was stopped early and is
    pruned in the study: so every sampler learns from it. Each trial is copied once.
    """

    def __init__(self, choices: Choices) -> None:
        self._max_drop = choices.max_drop
        self._space: Space = {name: _Shared(own) for name, own in choices.dimensions.items()}
        self._memory = _Memory()
        with unannounced():
            self._study = optuna.create_study(storage=self._memory)
        self._copied: list[Trial] = []

    def points(
        self, trials: Sequence[Trial], make: Callable[[Space], BaseSampler], names: Collection[str] | None = None
    ) -> Iterator[tuple[Parameters, Mapping[str, Any]]]:
        """Points in these dimensions, or in all, without end, each with what the sampler notes of it.

        `make` makes the sampler, which finds what it noted of earlier trials.
        """
        self._update([one for one in trials if one.state is State.RUNNING or one.drop is not None])
        space = self._space if names is None else {name: self._space[name] for name in names}
        sampler = make(space)
        while True:
            trial = self._ask(sampler, space)
            yield dict(trial.params), dict(trial.system_attrs)

    def _ask(self, sampler: BaseSampler, space: Space) -> FrozenTrial:
        """What `Study.ask` does; but that stores one parameter after the other, which takes longer than to choose them.

        A study remembers its trials until the next is asked for there: so another one does this.
        """
        name = self._study.study_name
        study = optuna.Study(name, self._memory, sampler)
        number = self._memory.create_new_trial(self._memory.get_study_id_from_name(name))
        trial = self._memory.get_trial(number)
        sampler.before_trial(study, trial)
        point = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        for missing in [name for name in space if name not in point]:
            point[missing] = sampler.sample_independent(study, trial, missing, space[missing])
        return self._memory.settle(number, {name: point[name] for name in space}, space)

    def _update(self, trials: list[Trial]) -> None:
        """Forget the points that were asked for, and copy the trials that are new, or have ended since."""
        same = unchanged(self._copied, trials)
        self._memory.forget(same)
        for trial in trials[same:]:
            self._study.add_trial(self._copy(trial))
        self._copied = trials

    def _copy(self, trial: Trial) -> FrozenTrial:
        shared: dict[str, Any] = {
            "params": {name: trial.parameters[name] for name in self._space},
            "distributions": self._space,
            "system_attrs": dict(trial.note),
        }
        if trial.drop is None:
            return create_trial(state=TrialState.RUNNING, **shared)
        return create_trial(value=trial.objective, constraints={"drop": trial.drop - self._max_drop}, **shared)
