"""The Optuna study: what it proposes, what it keeps, and what a process that dies leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from autoquant.calibration.plan import Plan
from autoquant.errors import RunError
from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.tuning.sampling.samplers import tpe
from autoquant.tuning.study.journal import NAME, Journal, shown
from autoquant.tuning.study.journal_file import JournalFile
from autoquant.tuning.study.space import Choice, Parameters, SearchSpace, Suggestion
from autoquant.tuning.study.stores import journal_store
from autoquant.tuning.study.study import ATTEMPTS, Study
from autoquant.tuning.study.trial import State, Trial
from autoquant.tuning.study.workload import MULTIPLY_ADDS, Workload

LAYERS = [
    Layer(f"l{i}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 2, 4), (3,), None, None, 10 * (i + 1)) for i in range(5)
]
LAYER_NAMES = {layer.name for layer in LAYERS}
WORKLOAD = Workload(
    {layer.name: layer for layer in LAYERS}, {layer.name: layer.macs or 0 for layer in LAYERS}, MULTIPLY_ADDS
)
SPACE = """
[global]
batch_num = [2, 1]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


@dataclass(frozen=True)
class Choices:
    """What TPE has to know of a space."""

    space: SearchSpace
    max_drop: float = 0.01
    total: int = 100

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        return self.space.dimensions

    @property
    def layers(self) -> list[str]:
        return [name for name in self.space.layers if self.space.may_be_float(name)]


def space_of(text: str = SPACE) -> SearchSpace:
    return SearchSpace(parse_space(text, "space"), LAYERS, batches=8)


def open_study(
    folder: Path, *, space: str = SPACE, seed: int = 0, stored: Mapping[int, Trial] = MappingProxyType({})
) -> Study:
    """One whose plans TPE chooses."""
    resolved = space_of(space)
    sampler = tpe(Choices(resolved), seed=seed, startup=len(list(resolved.starts())))
    return Study(journal_store(folder / "study.journal"), resolved, sampler, max_drop=0.01, stored=stored)


def failed(trial: Trial) -> Trial:
    share = WORKLOAD.int8_share(trial.plan)
    costs: dict[str, Any] = {"int8_share": share, "objective": 1.0 - share, "qdq_ops": len(trial.plan.int8)}
    return replace(trial, state=State.FAILED, failure="no luck", **costs)


def done(trial: Trial, *, drop: float = 0.0) -> Trial:
    known: dict[str, Any] = {"score": 0.9 - drop, "drop": drop, "samples": 100, "seconds": {"score": 1.5}}
    return replace(failed(trial), state=State.DONE, failure="", **known)


def stopped(trial: Trial, **facts: Any) -> Trial:
    """One that was stopped early, on 40 samples."""
    return replace(failed(trial), state=State.STOPPED, failure="", **{"samples": 40, **facts})


def next_of(study: Study) -> Trial:
    trial = study.propose()
    assert trial is not None
    return trial


def drop_of(plan: Plan) -> float:
    """The last layer must not be INT8."""
    return 0.2 if "l4" in plan.int8 else 0.0


def play(study: Study, count: int) -> list[Trial]:
    trials = []
    for _ in range(count):
        trial = next_of(study)
        trials.append(done(trial, drop=drop_of(trial.plan)))
        study.finish(trials[-1])
    return trials


def test_all_int8_with_each_setting_comes_first(tmp_path: Path) -> None:
    trials = play(open_study(tmp_path), 3)
    assert [trial.why for trial in trials] == ["all INT8: 2 batches", "all INT8: 1 batch", "all INT8: minmax"]
    assert all(trial.int8_layers == 5 and trial.int8_share == 1.0 for trial in trials)
    assert [trial.plan.batch_num for trial in trials] == [2, 1, 2]


def test_finished_trials_are_read_back(tmp_path: Path) -> None:
    trials = play(open_study(tmp_path), 4)
    trials.append(failed(next_of(study := open_study(tmp_path))))
    study.finish(trials[-1])
    assert list(open_study(tmp_path).trials()) == trials


def test_optuna_minimizes_the_objective_within_the_tolerance(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for value in (0.75, 1.25):
        study.finish(replace(done(next_of(study)), objective=value))
    assert [trial.objective for trial in open_study(tmp_path).trials()] == [0.75, 1.25]
    assert [trial.value for trial in stored(tmp_path) if trial.value is not None] == [0.75, 1.25]


def test_the_same_seed_gives_the_same_trials(tmp_path: Path) -> None:
    runs = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        runs.append([trial.plan for trial in play(open_study(tmp_path / name, seed=seed), 15)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = [trial.plan for trial in play(open_study(tmp_path / "whole"), 12)]
    parts = [trial.plan for _ in range(4) for trial in play(open_study(tmp_path / "parts"), 3)]
    assert parts == whole


def test_tpe_finds_the_layer_that_hurts(tmp_path: Path) -> None:
    trials = play(open_study(tmp_path), 40)
    good = [trial for trial in trials if trial.drop is not None and trial.drop <= 0.01]
    assert max(trial.int8_share for trial in good) == pytest.approx(1 - 50 / 150)


def test_a_plan_is_carried_out_once_and_never_all_float(tmp_path: Path) -> None:
    small = "[layer]\nquant_enable = [true, false]\n[[override]]\nlayers = ['l[0-2]']\nquant_enable = false"
    study = open_study(tmp_path, space=small)
    plans = []
    while (trial := study.propose()) is not None:
        plans.append(trial.plan)
        study.finish(done(trial))
    assert sorted(sorted(plan.int8) for plan in plans) == [["l3"], ["l3", "l4"], ["l4"]]


def test_a_space_with_one_plan_ends(tmp_path: Path) -> None:
    study = open_study(tmp_path, space="version = 1")
    assert len(play(study, 1)[0].plan.int8) == 5
    assert study.propose() is None


@pytest.mark.parametrize("told", [True, False], ids=["interrupted", "killed"])
def test_a_trial_that_did_not_end_is_proposed_again(tmp_path: Path, told: bool) -> None:
    study = open_study(tmp_path)
    play(study, 3)
    lost = next_of(study)
    if told:
        study.interrupt()
    again = next_of(open_study(tmp_path))
    assert again == lost
    assert [trial.number for trial in open_study(tmp_path).trials()] == [0, 1, 2]


def test_a_trial_whose_process_dies_each_time_has_failed(tmp_path: Path) -> None:
    trials = [next_of(open_study(tmp_path)) for _ in range(ATTEMPTS)]
    assert [trial.number for trial in trials] == [0] * ATTEMPTS
    study = open_study(tmp_path)
    assert [(trial.state, trial.failure) for trial in study.trials()] == [(State.FAILED, "its process died 3 times")]
    assert next_of(study).number == 1


def test_a_trial_that_was_interrupted_may_be_so_again(tmp_path: Path) -> None:
    for _ in range(ATTEMPTS + 1):
        study = open_study(tmp_path)
        assert next_of(study).number == 0
        study.interrupt()


@pytest.mark.parametrize("told", [True, False])
def test_an_interruption_while_the_end_is_told(told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial has ended, or it has not: in no case is it in between."""
    study = open_study(tmp_path)
    play(study, 2)
    trial, write = done(next_of(study)), JournalFile.append_logs

    def die(self: Journal, logs: list[dict[str, Any]]) -> None:
        if told:
            write(self, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(JournalFile, "append_logs", die)
        study.finish(trial)
    study.interrupt()
    ended = [0, 1, 2] if told else [0, 1]
    assert [one.number for one in study.trials()] == ended
    if told:
        assert study.trials()[2] == trial
    assert [one.number for one in open_study(tmp_path).trials()] == ended


@pytest.mark.parametrize(("moment", "fails"), [(1, False), (1, True), (2, True)])
def test_a_trial_that_died_while_its_end_was_written_has_ended(
    tmp_path: Path, moment: int, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the writes of its end, of which the last is all of it; its folder has what was not written."""
    study = open_study(tmp_path)
    trial = replace(failed(next_of(study)), at_fault="l1") if fails else done(next_of(study))
    writes, write = [], JournalFile.append_logs

    def die(self: Journal, logs: list[dict[str, Any]]) -> None:
        writes.append(logs)
        if len(writes) >= moment:
            raise KeyboardInterrupt
        write(self, logs)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(JournalFile, "append_logs", die)
        study.finish(trial)
    assert len(writes) == moment
    again = open_study(tmp_path, stored={0: trial})
    assert again.trials() == (trial,)
    assert next(one.state.name for one in stored(tmp_path)) == ("FAIL" if fails else "COMPLETE")
    in_float = [one for one in stored(tmp_path) if one.params["l1:quant_enable"] is False]
    assert len(in_float) == fails


def stored(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What Optuna has of them."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name="autoquant", storage=storage).trials


@pytest.mark.parametrize(
    ("facts", "state", "value", "constraint"),
    [
        ({"within": True, "drop": 0.004, "low": 0.001, "high": 0.01}, "COMPLETE", 0.25, -0.006),
        ({"within": False, "drop": 0.2, "low": 0.1, "high": 0.3}, "PRUNED", None, 0.19),
        ({"drop": 0.02, "low": -0.1, "high": 0.3}, "PRUNED", None, 0.01),
        ({"divergences": (0.5,), "divergence_samples": 64}, "PRUNED", None, None),
    ],
    ids=["within", "not within", "undecided", "only compared"],
)
def test_trials_that_were_stopped_early(
    tmp_path: Path, facts: dict[str, Any], state: str, value: float | None, constraint: float | None
) -> None:
    """One that is proven to be within counts for Optuna as one that was scored on everything, others are pruned."""
    study = open_study(tmp_path)
    trial = stopped(next_of(study), objective=0.25, **facts)
    study.finish(trial)
    frozen = stored(tmp_path)[trial.number]
    assert (frozen.state.name, frozen.value if state == "COMPLETE" else None) == (state, value)
    assert frozen.constraints.get("0") == (None if constraint is None else pytest.approx(constraint))
    assert list(open_study(tmp_path).trials()) == [trial]


@pytest.mark.parametrize("layers", ["l*", "l[0-2]"])
def test_a_trial_is_stored_in_a_few_writes_that_wait_for_the_disk(
    tmp_path: Path, layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of dimensions: all of them with the trial that waits, then running, then its end."""
    space = f"[[override]]\nlayers = ['{layers}']\nquant_enable = [true, false]\nact_algo = ['ifmr', 'minmax']"
    study = open_study(tmp_path, space=space)
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    journal = tmp_path / "study.journal"
    for end in (failed, done):
        before = len(journal.read_text().splitlines())
        synced.clear()
        trial = end(next_of(study))
        study.finish(trial)
        assert len(synced) == 2
        known = 1 + len(shown(trial, "score")) + 2 * (trial.drop is not None)  # its constraint, and its value
        assert len(journal.read_text().splitlines()) - before == 2 + known


def test_what_people_look_for_has_plain_names(tmp_path: Path) -> None:
    """In Optuna's own objects: the attributes, the name of what is minimized, and the best trial."""
    space = space_of()
    study = Study(
        journal_store(tmp_path / "study.journal"),
        space,
        Listed(),
        max_drop=0.01,
        metric="top1",
        minimized="share in float",
    )
    missed = replace(done(next_of(study)), drop=0.5, within=False, score=0.25, objective=0.0)
    study.finish(missed)
    opened = optuna.load_study(
        study_name=NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    )
    assert opened.metric_names == ["share in float"]
    assert [one.state.name for one in opened.trials][:1] == ["PRUNED"]  # else it would be the best
    found = opened.trials[0].user_attrs
    assert (found["top1"], found["drop"], found["layers in INT8"]) == (0.25, 0.5, "5 of 5")
    assert found["layers in float"] == "none"
    met = replace(done(next_of(study)), drop=0.0, within=True, score=0.75, objective=0.25)
    study.finish(met)
    assert opened.best_trial.number == met.number
    assert opened.best_trial.user_attrs["share in INT8"] == met.int8_share


def test_plain_optuna_reads_the_parameters_of_every_trial(tmp_path: Path) -> None:
    """Of one that waits too."""
    study = open_study(tmp_path)
    trial = done(next_of(study))
    study.finish(trial)
    frozen = stored(tmp_path)
    assert [one.state.name for one in frozen] == ["COMPLETE", "WAITING", "WAITING"]
    assert frozen[0].params == trial.parameters
    assert all(
        one.distributions == study_distributions() and one.params.keys() == trial.parameters.keys() for one in frozen
    )


def test_facts_added_later_are_read_when_the_study_is_opened_again(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.finish(stopped(next_of(study), drop=0.02, low=-0.1, high=0.3))
    (trial,) = study.trials()
    whole = replace(trial, state=State.DONE, score=0.9, drop=0.0, low=0.0, high=0.0, within=True, samples=240)
    study.amend(whole)
    assert study.trials() == open_study(tmp_path).trials() == (whole,)


class Listed:
    """Suggests what is listed, and remembers the trials that it was given at last."""

    def __init__(self, *suggestions: Suggestion) -> None:
        self.suggestions = list(suggestions)
        self.given: list[Trial] = []

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        self.given = list(trials)
        return self.suggestions.pop(0) if self.suggestions else None


def open_listed(folder: Path, *suggestions: Suggestion) -> Study:
    return Study(journal_store(folder / "study.journal"), space_of(), Listed(*suggestions), max_drop=0.01, starts=[])


def point(**changed: Choice) -> Parameters:
    return {**{name: choices[0] for name, choices in space_of().dimensions.items()}, **changed}


RACE = Suggestion(point(), "race: ifmr", "race", 64, note={"generation": 3})
WHOLE = Suggestion(point(), "why")
OTHER = Suggestion(point(batch_num=1), "why")


def raced(trial: Trial) -> Trial:
    """Seen on as many samples as asked for, to be compared alone."""
    assert trial.max_samples is not None
    return stopped(trial, divergences=(0.5,), divergence_samples=trial.max_samples, samples=trial.max_samples)


def test_facts_suggested_with_a_point_are_known_of_the_trial(tmp_path: Path) -> None:
    study = open_listed(tmp_path, RACE, OTHER)
    first = next_of(study)
    assert (first.state, first.parameters, first.plan.batch_num) == (State.RUNNING, RACE.parameters, 2)
    assert first.why == "race: ifmr"
    assert first.phase == "race"
    assert first.max_samples == 64
    assert first.note == RACE.note
    study.finish(raced(first))
    second = next_of(study)
    assert (second.phase, second.max_samples, second.note) == ("", None, {})
    assert open_listed(tmp_path).trials() == (raced(first),)


def test_a_plan_is_tried_again_on_more_samples_and_only_then(tmp_path: Path) -> None:
    limits = (64, 64, 32, 128, None, 256, None)
    study = open_listed(tmp_path, *(Suggestion(point(), "why", max_samples=limit) for limit in limits))
    tried = []
    for _ in range(3):
        trial = next_of(study)
        tried.append(trial.max_samples)
        study.finish(raced(trial) if trial.max_samples else replace(done(trial), divergence_samples=256))
    assert tried == [64, 128, None]
    assert study.propose() is None  # what was scored on everything tells all
    frozen = stored(tmp_path)
    assert [trial.user_attrs.get("repeats") for trial in frozen] == [None, 0, 0, None, None, 4, 4]
    assert [trial.state.name for trial in frozen] == ["PRUNED"] * 4 + ["COMPLETE"] * 3
    assert [trial.number for trial in open_listed(tmp_path).trials()] == [0, 3, 4]
    assert frozen[6].value == frozen[4].value


@pytest.mark.parametrize("within", [False, None], ids=["decided early", "undecided"])
def test_a_plan_that_was_scored_until_it_ended_by_itself_is_not_tried_again(
    tmp_path: Path, within: bool | None
) -> None:
    study = open_listed(tmp_path, WHOLE, WHOLE, OTHER)
    study.finish(stopped(next_of(study), within=within, drop=0.2, low=0.1, high=0.3))
    assert next_of(study).plan.batch_num == 1


def test_interrupted_trials_are_proposed_again_as_suggested(tmp_path: Path) -> None:
    lost = next_of(open_listed(tmp_path, RACE))
    again = next_of(open_listed(tmp_path))
    assert again == lost


@pytest.mark.parametrize("reopened", [False, True])
def test_a_sampler_is_given_all_trials_but_those_cut_off(tmp_path: Path, reopened: bool) -> None:
    """Running ones, and repetitions of a plan, which have become what that trial has."""
    study = open_listed(tmp_path, WHOLE, replace(WHOLE, phase="again"), OTHER)
    first = done(next_of(study))
    study.finish(first)
    running = next_of(study)
    repeated = replace(first, number=1, phase="again")
    sampler = Listed()
    if reopened:
        study = Study(journal_store(tmp_path / "study.journal"), space_of(), sampler, max_drop=0.01, starts=[])
        study.finish(failed(next_of(study)))  # what was cut off
        assert study.propose() is None
        assert sampler.given == [first, repeated, failed(running)]
    else:
        study._sampler = sampler
        assert study.propose() is None
        assert sampler.given == [first, repeated, running]


def test_several_trials_may_run_at_a_time(tmp_path: Path) -> None:
    study = open_listed(tmp_path, WHOLE, OTHER)
    one, other = next_of(study), next_of(study)
    study.finish(done(other))
    study.interrupt()
    assert study.trials() == (done(other),)
    assert next_of(open_listed(tmp_path)).plan == one.plan


def test_a_damaged_trial_is_named(tmp_path: Path) -> None:
    study = open_listed(tmp_path, WHOLE)
    study.finish(done(next_of(study)))
    journal = tmp_path / "study.journal"
    journal.write_text(journal.read_text().replace('"drop":0.0', '"drop":"none"'))
    with pytest.raises(RunError, match=r"study\.journal:trial 0\.drop: expected float, got 'none'"):
        open_listed(tmp_path)


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    study = optuna.create_study(storage=storage, study_name=NAME, direction="minimize")
    study.enqueue_trial(dict(point()), {"why": "all INT8", "limit": None})
    assert study.ask(dict(study_distributions())).number == 0
    with pytest.raises(RunError, match=r"study\.journal:trial 0: does not say what was suggested; was it written by"):
        open_listed(tmp_path)


def study_distributions() -> Mapping[str, optuna.distributions.BaseDistribution]:
    dimensions = space_of().dimensions
    return {name: optuna.distributions.CategoricalDistribution(choices) for name, choices in dimensions.items()}


def test_a_sampler_is_asked_again_where_a_point_means_a_plan_that_was_tried(tmp_path: Path) -> None:
    """After the starting point, which comes first."""
    space = space_of("[layer]\nquant_enable = [true, false]")
    everything = dict.fromkeys(space.dimensions, True)
    points = [{**everything, "l1:quant_enable": False}, everything, {**everything, "l2:quant_enable": False}]
    sampler = Listed(*(Suggestion(one, "told to") for one in points))
    study = Study(journal_store(tmp_path / "a.journal"), space, sampler, max_drop=0.01)
    trials = play(study, 3)
    assert [(trial.why, sorted(LAYER_NAMES - trial.plan.int8.keys())) for trial in trials] == [
        ("all INT8", []),
        ("told to", ["l1"]),
        ("told to", ["l2"]),
    ]
    assert study.propose() is None
    assert list(Study(journal_store(tmp_path / "a.journal"), space, Listed(), max_drop=0.01).trials()) == trials
