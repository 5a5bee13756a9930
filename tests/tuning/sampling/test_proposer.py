"""The guided sampler in Optuna studies, which several workers share."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from guided_problems import Synthetic, carry_out, random_problem, work, work_in_journal
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from autoquant.tuning.sampling.problem import gain_of, int8_of, meaning
from autoquant.tuning.sampling.proposer import GuidedProposer, superfluous
from autoquant.tuning.sampling.reading import ended, read
from autoquant.tuning.study.space import Choice

HARM: dict[str, dict[Choice, float]] = {"batch_num": {8: 1.0, 1: 1.2}, "equalize": {False: 1.0, True: 0.8}}


@pytest.fixture
def problem() -> Synthetic:
    return replace(random_problem(21), harm=HARM)


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study()


def distributions(problem: Synthetic) -> dict[str, Any]:
    return {name: CategoricalDistribution(choices) for name, choices in problem.dimensions.items()}


def check(problem: Synthetic, trials: list[FrozenTrial]) -> None:
    """That the optimum was found, and nothing was carried out twice."""
    past = [trial for trial in read(trials, problem.dimensions) if not trial.pending]
    points = [(meaning(trial.parameters, problem), trial.limit) for trial in past]
    assert len(set(points)) == len(points)
    best = max(gain_of(int8_of(trial.parameters, problem), problem) for trial in past if trial.within)
    assert best >= 0.99 * problem.optimum()


def test_what_waits_says_in_which_phase_and_why(problem: Synthetic, study: optuna.Study) -> None:
    work(problem, study, GuidedProposer(problem), most=4)
    trials = study.trials
    assert [trial.user_attrs["phase"] for trial in trials] == ["start", "race", "race", "race"]
    assert [trial.user_attrs["limit"] for trial in trials] == [None, 64, 64, 128]
    assert trials[2].user_attrs["why"] == "race: equalized, on 64 samples"


def test_the_optimum_is_found_and_nothing_is_carried_out_twice(problem: Synthetic, study: optuna.Study) -> None:
    work(problem, study, GuidedProposer(problem), most=40)
    check(problem, study.trials)


def test_the_same_seed_gives_the_same_trials_also_when_another_process_goes_on(problem: Synthetic) -> None:
    runs = []
    for parts in ((25,), (5, 7, 13)):
        study = optuna.create_study()
        for most in parts:
            work(problem, study, GuidedProposer(problem, seed=3), most=most)
        runs.append([(trial.params, trial.user_attrs["why"]) for trial in study.trials])
    assert runs[0] == runs[1]


def test_two_workers_who_take_turns(problem: Synthetic, study: optuna.Study) -> None:
    """Each asks while the other's trial is running."""
    proposers = [GuidedProposer(problem), GuidedProposer(problem)]
    running: list[optuna.Trial] = []
    for turn in range(60):
        if proposers[turn % 2].prepare(study):
            running.append(study.ask(distributions(problem)))
            assert superfluous(study, running[-1]) == ""
        elif not running:
            break
        if len(running) == 2 or not proposers[turn % 2].prepare(study):
            carry_out(problem, running.pop(0), study)
    check(problem, study.trials)


def test_two_processes_share_a_journal(problem: Synthetic, tmp_path: Path) -> None:
    journal = str(tmp_path / "study.journal")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work_in_journal, args=(problem, journal, 25)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    storage = optuna.storages.JournalStorage(JournalFileBackend(journal))
    check(problem, optuna.load_study(study_name="guided", storage=storage).trials)


def test_what_nobody_proposed_is_superfluous(problem: Synthetic, study: optuna.Study) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    assert superfluous(study, study.ask(distributions(problem))) == "proposed by nobody"


def test_of_two_that_are_the_same_the_later_is_superfluous(problem: Synthetic, study: optuna.Study) -> None:
    other = optuna.create_study()
    for place in (study, other):
        GuidedProposer(problem).prepare(place)
    study.add_trial(other.trials[0])  # as if both had read the study before either wrote
    first, second = study.ask(distributions(problem)), study.ask(distributions(problem))
    assert superfluous(study, first) == ""
    assert superfluous(study, second) == "the same as trial 0"


def test_a_repetition_has_become_what_the_other_has_and_what_was_cut_off_does_not_count(
    problem: Synthetic, study: optuna.Study
) -> None:
    work(problem, study, GuidedProposer(problem), most=2)
    study.enqueue_trial(study.trials[0].params, {"phase": "start", "limit": 5})
    repeated = study.ask(distributions(problem))
    repeated.set_user_attr("repeats", 0)
    study.tell(repeated, state=TrialState.PRUNED)
    study.enqueue_trial(study.trials[0].params)
    study.tell(study.ask(distributions(problem)), state=TrialState.FAIL)
    first, _, again = read(study.trials, problem.dimensions)
    assert again == replace(first, number=2)
    assert [ended(trial) for trial in study.trials] == [True, True, True, False]


def test_tpe_goes_on_around_the_incumbent_when_all_else_is_used_up(study: optuna.Study) -> None:
    """Layers of equal gain and loss that differ in what cannot be predicted."""
    problem = replace(random_problem(22, bad=3, ranges=2), noise=0.3)
    work(problem, study, GuidedProposer(problem), most=60)
    tried = [trial for trial in study.trials if trial.user_attrs["phase"] == "tpe"]
    for trial in tried:
        number = int(trial.user_attrs["why"].removeprefix("TPE around trial "))
        around = study.trials[number]
        assert around.user_attrs["within"]
        assert 1 <= sum(trial.params[name] != value for name, value in around.params.items()) <= 6
        assert trial.user_attrs["objective"] < around.user_attrs["objective"]
    assert tried
