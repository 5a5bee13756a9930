"""A storage of Optuna that waits where what it is in is away, and writes several records at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from autoquant.tuning.study.patience import Patience

T = TypeVar("T")


class PatientStorage(BaseStorage):
    """Another storage, which is asked again where that raises errors that mean it is `lost`.

    A write whose answer was lost is not made twice: attributes are overwritten, and trials and states that were already
    made are looked for. One process alone adds trials to a study. `transaction` makes what is written within one write,
    and `close` ends its connections.
    """

    def __init__(
        self,
        storage: BaseStorage,
        patience: Patience,
        lost: Callable[[Exception], bool],
        transaction: Callable[[], AbstractContextManager[None]] = nullcontext,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._patience = patience
        self._lost = lost
        self._transaction = transaction
        self.close = close
        self._made: set[int] = set()
        self._held: list[Callable[[int], object]] | None = None

    @property
    def away(self) -> int:
        """How often it was not there."""
        return self._patience.away

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the attributes, values and states that are set within at its end, at once."""
        held: list[Callable[[int], object]] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None

            def write(failures: int) -> None:
                with self._transaction():
                    for one in held:
                        one(failures)

            if held:
                self._patience.call(write, self._lost)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna has it; one that was made before the answer was lost is the one."""

        def attempt(failures: int) -> int:
            found = self._storage.get_all_trials(study_id, deepcopy=False) if failures and template_trial else []
            for one in found:
                if one._trial_id not in self._made and template_trial and _is_made_of(one, template_trial):
                    return one._trial_id
            return self._storage.create_new_trial(study_id, template_trial)

        made = self._patience.call(attempt, self._lost)
        self._made.add(made)
        return made

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna has it; a state that was set before the answer was lost is set."""

        def attempt(failures: int) -> bool:
            try:
                made = self._storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if not failures or self._storage.get_trial(trial_id).state is not state:
                    raise
                return True
            return made or (failures > 0 and self._storage.get_trial(trial_id).state is state)

        return self._set(attempt) is not False

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """As Optuna has it."""
        return self._get(lambda: self._storage.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        """As Optuna has it."""
        self._get(lambda: self._storage.delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna has it."""
        self._set(lambda _: self._storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna has it."""
        self._set(lambda _: self._storage.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """As Optuna has it."""
        return self._get(self._storage.get_all_studies)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As Optuna has it."""
        self._set(lambda _: self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_trial_id_from_study_id_trial_number(study_id, trial_number))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna has it."""
        self._set(lambda _: self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna has it."""
        self._set(lambda _: self._storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna has it."""
        self._set(lambda _: self._storage.set_trial_system_attr(trial_id, key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_trial(trial_id))

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_trial_user_attrs(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna has it."""
        return self._get(lambda: self._storage.get_all_trials(study_id, deepcopy, states))

    def _get(self, ask: Callable[[], T]) -> T:
        return self._patience.call(lambda _: ask(), self._lost)

    def _set(self, write: Callable[[int], T]) -> T | None:
        """Write, now or, inside of `together`, at its end."""
        if self._held is not None:
            self._held.append(write)
            return None
        return self._patience.call(write, self._lost)


def _is_made_of(trial: FrozenTrial, template: FrozenTrial) -> bool:
    return (trial.state, trial.params, trial.user_attrs) == (template.state, template.params, template.user_attrs)
