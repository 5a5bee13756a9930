"""The trials of a study as Optuna stores them: how they are written, and which of them wait."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoquant.formats.codec import encode, without_nulls
from autoquant.tuning.study.journal import (
    CONSTRAINTS,
    OUTCOME,
    REPEATS,
    SKIPPED,
    SUGGESTED,
    Distributions,
    ended_state,
    has_ended,
    shown,
)
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.stores import StudyStore
from autoquant.tuning.study.trial import Trial

AMENDED = "amended"
"""The attribute of the study that holds what became known of trials after they had ended, by number."""
ATTEMPT = "attempt"
"""The attribute of a trial that holds how often it was begun, where that was more than once."""


class StoredTrials:
    """Writes the trials of a study, each in as few writes as can be.

    One process alone adds trials and sets their states, so which of them wait is known without asking: to ask takes the
    longer the more there are.
    """

    def __init__(self, store: StudyStore, distributions: Distributions, *, metric: str, max_drop: float) -> None:
        self.where = store.where
        self._store = store
        self._study = store.study
        self._distributions = dict(distributions)
        self._metric = metric
        self._max_drop = max_drop
        self._waiting = {one.number: one for one in self.every() if one.state is TrialState.WAITING}

    @property
    def _storage(self) -> BaseStorage:
        return self._store.storage

    def name_objective(self, name: str) -> None:
        """Let what is minimized be called so, where people look at it."""
        if name and self._study.metric_names != [name]:
            with warnings.catch_warnings():  # that Optuna may change it yet
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.set_metric_names([name])

    def every(self) -> Sequence[FrozenTrial]:
        """All of them, by number, as the storage has them."""
        return self._study.get_trials(deepcopy=False)

    @property
    def waiting(self) -> Sequence[FrozenTrial]:
        """Those that wait, by number."""
        return [self._waiting[number] for number in sorted(self._waiting)]

    @property
    def amended(self) -> Mapping[str, Any]:
        """What became known of trials after they had ended, by number."""
        found: Mapping[str, Any] = self._study.user_attrs.get(AMENDED, {})
        return found

    def has_point(self, point: Parameters) -> bool:
        """Whether any trial is at this point."""
        return any(one.params == point for one in self.every())

    def add(self, suggestion: Suggestion, *, begun: bool = False) -> FrozenTrial:
        """A new trial that waits, or has `begun`.

        Optuna's `enqueue_trial` leaves the parameters to be written one by one, and `ask` claims a trial in a write.
        """
        trial = create_trial(
            state=TrialState.RUNNING if begun else TrialState.WAITING,
            params=dict(suggestion.parameters),
            distributions=self._distributions,
            user_attrs={name: getattr(suggestion, name) for name in SUGGESTED},
        )
        made = self._storage.get_trial(self._storage.create_new_trial(self._study._study_id, trial))
        if not begun:
            self._waiting[made.number] = made
        return made

    def wall_seconds(self) -> float:
        """The seconds in which any trial that has ended ran, those in which several did counted once."""
        ended = (one for one in self.every() if has_ended(one))
        spans = sorted((one.datetime_start, one.datetime_complete) for one in ended if one.datetime_start)
        seconds, until = 0.0, datetime.min
        for begin, end in spans:
            assert begin is not None and end is not None
            seconds += max((end - max(begin, until)).total_seconds(), 0.0)
            until = max(until, end)
        return seconds

    def begin(self, trial: FrozenTrial) -> None:
        """Let one that waits run."""
        self._set(trial, TrialState.RUNNING)
        self._waiting.pop(trial.number, None)

    def wait_again(self, trial: FrozenTrial, attempt: int | None = None) -> None:
        """Let one that runs wait; where its process died it is to be begun for the so-and-so-manieth time."""
        with self._store.together():
            if attempt is not None:
                self._storage.set_trial_user_attr(trial._trial_id, ATTEMPT, attempt)
            self._set(trial, TrialState.WAITING)
        self._waiting[trial.number] = trial

    def end(self, stored: FrozenTrial, trial: Trial) -> None:
        """Write how one that runs has ended, all of it at once."""
        known = {**shown(trial, self._metric), OUTCOME: without_nulls(encode(trial))}
        state, _ = ended_state(trial, self._max_drop)
        with self._store.together():
            self._describe(stored, known)
            if trial.drop is not None:
                # The value that is shown of one that is pruned.
                self._storage.set_trial_intermediate_value(stored._trial_id, trial.samples, trial.objective)
                self._constrain(stored, [trial.drop - self._max_drop])
            self._set(stored, state, None if trial.drop is None else [trial.objective])

    def skip(self, trial: FrozenTrial, why: str) -> None:
        """End one whose plan is not tried."""
        with self._store.together():
            self._describe(trial, {SKIPPED: why})
            self._set(trial, TrialState.PRUNED)

    def repeat(self, trial: FrozenTrial, number: int) -> None:
        """End one of a plan that was tried before, as the trial of that number."""
        earlier = self.every()[number]
        is_complete = earlier.state is TrialState.COMPLETE
        with self._store.together():
            self._describe(trial, {REPEATS: number})
            if earlier.constraints:
                self._constrain(trial, list(earlier.constraints.values()))
            values = earlier.values if is_complete else None
            self._set(trial, TrialState.COMPLETE if is_complete else TrialState.PRUNED, values)

    def amend(self, trial: Trial) -> None:
        """Know more of one than when it ended, beside it: Optuna's trials cannot be changed then."""
        self._study.set_user_attr(AMENDED, {**self.amended, str(trial.number): without_nulls(encode(trial))})

    def _describe(self, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _constrain(self, trial: FrozenTrial, values: list[float]) -> None:
        self._storage.set_trial_system_attr(trial._trial_id, CONSTRAINTS, values)

    def _set(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None = None) -> None:
        self._storage.set_trial_state_values(trial._trial_id, state, values)
