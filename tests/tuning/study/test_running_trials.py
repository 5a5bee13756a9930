"""Several trials at a time: whatever sampler proposes them, and in whatever order they end."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
import pytest
from guided_problems import Synthetic, play, random_problem
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from worker_pool import SyntheticSpace, evaluated, run_trials

from autoquant.formats.config_json import plan_digest
from autoquant.tuning.sampling.problem import start_of
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.study.choices import AMCT, GUIDED, SAMPLERS
from autoquant.tuning.study.journal import NAME, OUTCOME, REPEATS, SKIPPED, mend_journal
from autoquant.tuning.study.space import Choice, Suggestion
from autoquant.tuning.study.stores import journal_store
from autoquant.tuning.study.study import ATTEMPTS, Sampler, Study, distributions_of
from autoquant.tuning.study.trial import State, Trial

HARM: Mapping[str, Mapping[Choice, float]] = {"batch_num": {8: 1.0, 1: 1.2}, "equalize": {False: 1.0, True: 0.7}}
PROBLEM = replace(random_problem(61, layers=4, ranges=2), harm=HARM)
WITHOUT_STARTS = (GUIDED, AMCT)


def sampler_of(name: str, problem: Synthetic = PROBLEM, seed: int = 0) -> Sampler:
    ranking = {layer: -own["r0"] for layer, own in problem.predicted.items()}
    return open_sampler(name, problem, seed=seed, startup=4, ranking=lambda: ranking)


def stored(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name=NAME, storage=storage).trials


@dataclass
class Owner:
    """A study that proposes several trials at a time; all that must hold is checked with each that it proposes."""

    folder: Path
    name: str
    space: SyntheticSpace
    running: dict[int, Trial] = field(default_factory=dict)
    ended: dict[int, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Also after the process before died, or was interrupted."""
        self.sampler = sampler_of(self.name, self.space.problem)
        self.study = Study(
            journal_store(self.folder / "study.journal"),
            self.space,
            self._checked,
            max_drop=self.space.problem.max_drop,
            starts=[] if self.name in WITHOUT_STARTS else None,
        )

    def propose(self) -> bool:
        trial = self.study.propose()
        if trial is None:
            return False
        assert trial.number not in {**self.running, **self.ended}
        for other in self.running.values():
            assert plan_digest(other.plan) != plan_digest(trial.plan) or not other.reaches(trial.max_samples)
        for other in self.ended.values():
            assert plan_digest(other.plan) != plan_digest(trial.plan) or not tells(other, trial.max_samples)
        self.running[trial.number] = trial
        return True

    def finish(self, trial: Trial) -> None:
        self.study.finish(trial)
        del self.running[trial.number]
        self.ended[trial.number] = trial

    def reopen(self, *, interrupted: bool) -> None:
        """What ran waits under its number, as it was, unless it has been answered since."""
        lost = dict(self.running)
        if interrupted:
            self.study.interrupt()
        self.running.clear()
        self.open()
        if len(lost) == 1:
            self._take_failed(lost)
        assert lost.keys() <= {one.number for one in stored(self.folder) if one.state.name == "WAITING"}
        assert [trial.number for trial in self.study.trials()] == sorted(self.ended)
        while (left := lost.keys() - self.running.keys() - self._repeats()) and self.propose():
            assert self.running.keys() <= lost.keys()
            assert all(trial.parameters == lost[number].parameters for number, trial in self.running.items())
        assert not left

    def check(self, *, to_the_end: bool) -> None:
        """Every number is of a plan that was carried out, or of a repetition, or of a plan all in float, or waits."""
        assert not self.running
        for one in stored(self.folder):
            waits = one.state.name == "WAITING" and not to_the_end
            assert waits or one.number in self.ended or one.user_attrs.keys() & {REPEATS, SKIPPED}
            assert (one.number in self.ended) is (OUTCOME in one.user_attrs)
        assert self.study.trials() == tuple(self.ended[number] for number in sorted(self.ended))

    def _take_failed(self, lost: dict[int, Trial]) -> None:
        """A trial whose process died so often while nothing else ran has failed."""
        for trial in self.study.trials():
            if trial.number in lost:
                assert trial.failure == f"its process died {ATTEMPTS} times"
                self.ended[trial.number] = trial
                del lost[trial.number]

    def _repeats(self) -> set[int]:
        return {one.number for one in stored(self.folder) if REPEATS in one.user_attrs}

    def _checked(self, trials: Sequence[Trial]) -> Suggestion | None:
        numbers = [trial.number for trial in trials]
        assert numbers == sorted(numbers)
        assert set(numbers) == self.running.keys() | self.ended.keys() | self._repeats()
        for trial in trials:  # at its own point, or at one that means the same plan and was suggested beside others
            ended = self.ended.get(trial.number)
            assert ended is None or trial == replace(ended, parameters=trial.parameters)
            assert ended is None or self.space.plan(trial.parameters) == ended.plan
        return self.sampler(trials)


def tells(ended: Trial, max_samples: int | None) -> bool:
    """Whether a trial leaves another of its plan nothing to find out."""
    if max_samples is None:
        return ended.final
    return ended.divergence_samples >= max_samples or ended.state is State.FAILED


def failed(trial: Trial, share: float) -> Trial:
    """By one of its layers in INT8."""
    layers = sorted(trial.plan.int8)
    at_fault = layers[int(share * len(layers)) % len(layers)]
    return replace(trial, state=State.FAILED, failure="no luck", at_fault=at_fault)


STEPS = st.lists(st.tuples(st.integers(0, 11), st.floats(0.0, 1.0, exclude_max=True)), min_size=10, max_size=30)


@pytest.mark.parametrize("name", SAMPLERS)
@given(steps=STEPS, most=st.integers(2, 6), seed=st.integers(0, 3), alike=st.booleans())
@settings(max_examples=4, phases=[Phase.reuse, Phase.generate])
def test_no_plan_is_carried_out_twice_and_nothing_is_lost(
    name: str, steps: list[tuple[int, float]], most: int, seed: int, alike: bool
) -> None:
    """Trials end in any order, some fail, and the process dies or is interrupted."""
    problem = replace(random_problem(61 + seed, layers=4, ranges=2), harm=HARM if seed % 2 else {})
    with tempfile.TemporaryDirectory() as folder:
        owner = Owner(Path(folder), name, SyntheticSpace(problem, alike))
        for what, share in steps:
            while len(owner.running) < most and owner.propose():
                pass
            if not owner.running:
                break
            trial = sorted(owner.running.items())[int(share * len(owner.running))][1]
            if what < 2:
                owner.reopen(interrupted=what == 0)
            else:
                owner.finish(failed(trial, share) if what == 2 else evaluated(problem, trial))
        more = True
        while owner.running:
            owner.finish(evaluated(problem, owner.running[min(owner.running)]))
            while len(owner.ended) < 20 and len(owner.running) < most and (more := owner.propose()):
                pass
        owner.check(to_the_end=not more)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_worker_proposes_what_the_sampler_suggests(name: str, tmp_path: Path) -> None:
    """As if there were no study, and no trial that runs."""
    problem, starts = replace(PROBLEM, harm={}), () if name in WITHOUT_STARTS else None
    space, sampler = SyntheticSpace(problem), sampler_of(name, problem)
    study = Study(journal_store(tmp_path / "a.journal"), space, sampler, max_drop=0.01, starts=starts)
    random = np.random.default_rng(0)
    ended = [one.trial for one in run_trials(study, problem, workers=1, most=12, random=random)]
    before = ended[: 0 if name in WITHOUT_STARTS else 1]
    expected = play(problem, sampler_of(name, problem), budget=1e9, most=12, before=before).trials
    assert [(one.number, one.parameters, one.why) for one in ended] == [
        (one.number, one.parameters, one.why) for one in expected
    ]


class Listed:
    """Suggests what is listed, and remembers the trials that it was given each time."""

    def __init__(self, *suggestions: Suggestion) -> None:
        self.suggestions = list(suggestions)
        self.given: list[Sequence[Trial]] = []

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        self.given.append(trials)
        return self.suggestions.pop(0) if self.suggestions else None


SPACE = SyntheticSpace(PROBLEM, alike=True)


def suggestion(max_samples: int | None = None, **changed: Choice) -> Suggestion:
    point = {**start_of(PROBLEM), **{name.replace("__", ":"): value for name, value in changed.items()}}
    return Suggestion(point, "why", max_samples=max_samples)


ALL, ALIKE, ONE_BATCH = suggestion(), suggestion(l00__act_algo="r1"), suggestion(batch_num=1)


def open_listed(
    folder: Path,
    *suggestions: Suggestion,
    starts: Sequence[Suggestion] = (),
    stored: Mapping[int, Trial] = MappingProxyType({}),
) -> tuple[Study, Listed]:
    sampler = Listed(*suggestions)
    study = Study(journal_store(folder / "study.journal"), SPACE, sampler, max_drop=0.01, starts=starts, stored=stored)
    return study, sampler


def next_of(study: Study) -> Trial:
    trial = study.propose()
    assert trial is not None
    return trial


def raced(trial: Trial) -> Trial:
    return replace(trial, state=State.STOPPED, divergences=(0.5,), divergence_samples=trial.max_samples or 0)


def test_what_repeats_a_running_plan_is_not_stored_and_the_sampler_is_told(tmp_path: Path) -> None:
    study, sampler = open_listed(tmp_path, ALL, ALIKE, ALL, ONE_BATCH)
    first, second = next_of(study), next_of(study)
    assert (first.number, second.number, second.parameters) == (0, 1, ONE_BATCH.parameters)
    assert sampler.given[1:] == [
        [first],
        [first, replace(first, parameters=ALIKE.parameters)],
        [first, replace(first, parameters=ALIKE.parameters), first],
    ]
    assert len(stored(tmp_path)) == 2


def test_beside_running_trials_what_has_ended_is_not_repeated_in_the_study(tmp_path: Path) -> None:
    study, sampler = open_listed(tmp_path, ALL, ONE_BATCH, ALIKE, ALL, suggestion(equalize=True))
    ended = replace(next_of(study), state=State.DONE, drop=0.5, within=False)
    running = next_of(study)
    study.finish(ended)
    assert next_of(study).number == 2
    assert sampler.given[-1] == [ended, replace(ended, parameters=ALIKE.parameters), ended, running]
    assert len(stored(tmp_path)) == 3


def test_a_sampler_that_repeats_itself_for_ever_writes_nothing(tmp_path: Path) -> None:
    study, sampler = open_listed(tmp_path, *[ALL] * 100)
    next_of(study)
    assert study.propose() is None
    assert study.propose() is None
    assert (len(stored(tmp_path)), len(sampler.suggestions)) == (1, 49), "it is asked again once a trial has ended"
    study.finish(replace(raced(next(iter(sampler.given[-1]))), within=False, drop=0.5))
    assert study.propose() is None
    assert [one.user_attrs.get(REPEATS) for one in stored(tmp_path)] == [None, *[0] * 49], "as with a single worker"


def test_a_point_of_a_running_plan_waits_and_others_go_before_it(tmp_path: Path) -> None:
    study, _ = open_listed(tmp_path, starts=[ALL, ALIKE, ONE_BATCH])
    first, second = next_of(study), next_of(study)
    assert (first.number, second.number) == (0, 2)
    assert study.propose() is None
    study.finish(replace(first, state=State.DONE, drop=0.0, within=True))
    assert study.propose() is None
    assert [one.user_attrs.get(REPEATS) for one in stored(tmp_path)] == [None, 0, None]


def test_a_plan_runs_beside_itself_on_more_samples_only(tmp_path: Path) -> None:
    limits = (64, 64, 32, 128, None, None, 256)
    study, _ = open_listed(tmp_path, *(suggestion(limit) for limit in limits))
    running = [next_of(study) for _ in range(3)]
    assert [(trial.number, trial.max_samples) for trial in running] == [(0, 64), (1, 128), (2, None)]
    assert study.propose() is None
    assert len(stored(tmp_path)) == 3


@pytest.mark.parametrize("reopened", [False, True])
def test_of_trials_of_one_plan_the_one_that_saw_most_counts_in_whatever_order_they_end(
    tmp_path: Path, reopened: bool
) -> None:
    study, sampler = open_listed(tmp_path, suggestion(64), suggestion(128))
    for trial in reversed([next_of(study), next_of(study)]):
        study.finish(raced(trial))
    if reopened:
        study, sampler = open_listed(tmp_path)
    sampler.suggestions = [suggestion(128), suggestion(256)]
    assert next_of(study).max_samples == 256
    assert stored(tmp_path)[2].user_attrs[REPEATS] == 1


def test_what_a_trial_that_began_later_has_told_is_not_tried_after_a_death(tmp_path: Path) -> None:
    """It repeats one of a larger number, which is read and mended as any other."""
    study, _ = open_listed(tmp_path, suggestion(64), suggestion(128))
    _, later = next_of(study), next_of(study)
    ended = raced(later)
    study.finish(ended)
    study, sampler = open_listed(tmp_path)
    assert study.propose() is None
    assert stored(tmp_path)[0].user_attrs[REPEATS] == 1
    expected = [replace(ended, number=0, max_samples=128), ended]
    assert list(sampler.given[-1]) == expected
    distributions, journal = distributions_of(SPACE.dimensions), tmp_path / "study.journal"
    mend_journal(journal, {1: ended}, distributions, count=2, max_drop=0.01, metric="score", warn=pytest.fail)
    study, sampler = open_listed(tmp_path)
    assert study.propose() is None
    assert list(sampler.given[-1]) == expected


def test_of_several_that_ran_none_is_to_blame_for_the_death_of_the_process(tmp_path: Path) -> None:
    for _ in range(ATTEMPTS + 1):
        study, _ = open_listed(tmp_path, ALL, ONE_BATCH)
        assert [next_of(study).number for _ in range(2)] == [0, 1]
    for _ in range(ATTEMPTS):
        study, _ = open_listed(tmp_path)
        assert next_of(study).number == 0
    study, _ = open_listed(tmp_path)
    assert [(trial.number, trial.failure) for trial in study.trials()] == [(0, f"its process died {ATTEMPTS} times")]
    assert next_of(study).number == 1


def test_an_interruption_leaves_all_that_ran_to_wait(tmp_path: Path) -> None:
    for _ in range(ATTEMPTS + 1):
        study, _ = open_listed(tmp_path, ALL, ONE_BATCH, suggestion(equalize=True))
        assert [next_of(study).number for _ in range(3)] == [0, 1, 2]
        study.interrupt()


def test_what_has_a_layer_in_float_goes_before_others(tmp_path: Path) -> None:
    study, _ = open_listed(tmp_path, ONE_BATCH, suggestion(equalize=True), starts=[ALL])
    first, _ = next_of(study), next_of(study)
    study.finish(replace(first, state=State.FAILED, failure="no luck", at_fault="l01"))
    third = next_of(study)
    assert (third.why, "l01" in third.plan.int8) == ("as trial 0, with l01 in float", False)


def test_random_points_are_the_same_however_many_run(tmp_path: Path) -> None:
    found: list[Any] = []
    for workers in (1, 3, 8):
        space, sampler = SyntheticSpace(PROBLEM), sampler_of("random")
        study = Study(journal_store(tmp_path / f"{workers}.journal"), space, sampler, max_drop=0.01)
        every = run_trials(study, PROBLEM, workers=workers, most=20, random=np.random.default_rng(workers))
        found.append(sorted((one.trial.number, sorted(one.trial.parameters.items())) for one in every))
    assert found[0] == found[1] == found[2]
