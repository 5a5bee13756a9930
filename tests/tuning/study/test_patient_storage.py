"""A storage whose answers are lost, before or after what was asked was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from autoquant.tuning.study.patience import Patience
from autoquant.tuning.study.patient_storage import PatientStorage

TEMPLATE = create_trial(
    state=TrialState.RUNNING,
    params={"a": 1},
    distributions={"a": CategoricalDistribution((0, 1))},
    user_attrs={"why": "x"},
)


class Lossy:
    """Another storage, of which the next answer is lost: after the work was done, or before."""

    def __init__(self) -> None:
        self.storage, self.lose = InMemoryStorage(), ""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.storage, name)

        def call(*given: Any, **options: Any) -> Any:
            lose, self.lose = self.lose, ""
            if lose == "before":
                raise ConnectionError("gone")
            answer = found(*given, **options)
            if lose == "after":
                raise ConnectionError("gone")
            return answer

        return call


@pytest.fixture
def lossy() -> Lossy:
    return Lossy()


@pytest.fixture
def storage(lossy: Lossy) -> PatientStorage:
    patience = Patience("db", clock=lambda: 0.0, sleep=lambda seconds: None)
    return PatientStorage(lossy, patience, lambda error: isinstance(error, ConnectionError))  # type: ignore[arg-type]


@pytest.fixture
def study(storage: PatientStorage) -> int:
    return storage.create_new_study([StudyDirection.MINIMIZE], "study")


Write = Callable[[PatientStorage, int], object]


@pytest.mark.parametrize("lose", ["before", "after"])
@pytest.mark.parametrize(
    "write",
    [
        lambda storage, trial: storage.set_trial_user_attr(trial, "a", 1),
        lambda storage, trial: storage.set_trial_system_attr(trial, "a", 1),
        lambda storage, trial: storage.set_trial_intermediate_value(trial, 3, 0.5),
        lambda storage, trial: storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5]),
        lambda storage, trial: storage.set_study_user_attr(0, "a", 1),
    ],
)
def test_what_is_written_is_written_once(
    storage: PatientStorage, lossy: Lossy, study: int, lose: str, write: Write
) -> None:
    trials = [storage.create_new_trial(study, TEMPLATE) for _ in range(2)]
    write(storage, trials[0])
    lossy.lose = lose
    write(storage, trials[1])
    assert storage.away == 1
    one, other = map(storage.get_trial, trials)
    assert (one.state, one.values, one.user_attrs, one.system_attrs, one.intermediate_values) == (
        *(other.state, other.values, other.user_attrs, other.system_attrs, other.intermediate_values),
    )


@pytest.mark.parametrize("lose", ["before", "after"])
def test_a_trial_is_made_once(storage: PatientStorage, lossy: Lossy, study: int, lose: str) -> None:
    """Also where another has the same parameters."""
    first = storage.create_new_trial(study, TEMPLATE)
    lossy.lose = lose
    second = storage.create_new_trial(study, TEMPLATE)
    assert first != second and len(storage.get_all_trials(study)) == 2


def test_a_trial_that_another_ended_is_no_lost_answer(storage: PatientStorage, study: int) -> None:
    trial = storage.create_new_trial(study, TEMPLATE)
    storage.set_trial_state_values(trial, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])


@pytest.mark.parametrize("lose", ["", "before", "after"])
def test_what_is_written_together_is_one_transaction(lossy: Lossy, lose: str) -> None:
    begun: list[str] = []

    @contextmanager
    def transaction() -> Iterator[None]:
        begun.append("begin")
        yield
        begun.append("end")

    patience = Patience("db", clock=lambda: 0.0, sleep=lambda seconds: None)
    storage = PatientStorage(lossy, patience, lambda error: isinstance(error, ConnectionError), transaction)  # type: ignore[arg-type]
    study = storage.create_new_study([StudyDirection.MINIMIZE], "study")
    trial = storage.create_new_trial(study, TEMPLATE)
    with storage.together():
        storage.set_trial_user_attr(trial, "a", 1)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
        assert storage.get_trial(trial).state is TrialState.RUNNING and not begun
        lossy.lose = lose
    found = storage.get_trial(trial)
    assert (found.state, found.value, found.user_attrs) == (TrialState.COMPLETE, 0.5, {"why": "x", "a": 1})
    assert begun == (["begin", "begin", "end"] if lose else ["begin", "end"])


def test_a_study_of_optuna_works_on_it(storage: PatientStorage) -> None:
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=3)
    assert len(study.trials) == 3 and study.best_trial.value is not None
