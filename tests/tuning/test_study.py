"""The Optuna study: what it proposes, what it keeps, and what a process that dies leaves."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.tuning.result import State, Trial
from autoquant.tuning.space import SearchSpace
from autoquant.tuning.study import ATTEMPTS, Guided, Study
from autoquant.tuning.workload import Workload

LAYERS = [
    Layer(f"l{i}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 2, 4), (3,), None, None, 10 * (i + 1)) for i in range(5)
]
LAYER_NAMES = {layer.name for layer in LAYERS}
WORKLOAD = Workload({layer.name: layer for layer in LAYERS}, {layer.name: layer.macs or 0 for layer in LAYERS}, True)
SPACE = """
[global]
batch_num = [2, 1]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


def open_study(folder, *, space=SPACE, seed=0) -> Study:
    resolved = SearchSpace(parse_space(space, "space"), LAYERS, batches=8)
    return Study(folder / "study.journal", resolved, seed=seed, allowed=0.01)


def ended(proposal, *, loss: float | None) -> Trial:
    """A trial that ended with this drop, or failed."""
    plan = proposal.plan
    trial = Trial(
        number=proposal.number,
        state=State.FAILED,
        plan=plan,
        why=proposal.why,
        int8_layers=len(plan.int8),
        int8_share=WORKLOAD.int8_share(plan),
        objective=1.0 - WORKLOAD.int8_share(plan),
        boundaries=len(plan.int8),
        reason="no luck",
    )
    if loss is None:
        return trial
    return replace(trial, state=State.DONE, score=0.9 - loss, drop=loss, samples=100, seconds={"score": 1.5}, reason="")


def loss_of(plan) -> float:
    """The last layer must not be INT8."""
    return 0.2 if "l4" in plan.int8 else 0.0


def play(study: Study, count: int) -> list[Trial]:
    trials = []
    for _ in range(count):
        proposal = study.propose()
        assert proposal is not None
        trials.append(ended(proposal, loss=loss_of(proposal.plan)))
        study.finish(trials[-1])
    return trials


def test_all_int8_with_each_setting_comes_first(tmp_path):
    trials = play(open_study(tmp_path), 3)
    assert [trial.why for trial in trials] == ["all INT8: 2 batches", "all INT8: 1 batch", "all INT8: minmax"]
    assert all(trial.int8_layers == 5 and trial.int8_share == 1.0 for trial in trials)
    assert [trial.plan.batch_num for trial in trials] == [2, 1, 2]


def test_what_is_told_is_read_back(tmp_path):
    trials = play(open_study(tmp_path), 4)
    proposal = (study := open_study(tmp_path)).propose()
    assert proposal is not None
    trials.append(ended(proposal, loss=None))
    study.finish(trials[-1])
    assert list(open_study(tmp_path).trials()) == trials


def test_what_optuna_minimizes_is_the_objective_within_the_tolerance(tmp_path):
    study = open_study(tmp_path)
    for value in (0.75, 1.25):
        proposal = study.propose()
        assert proposal is not None
        study.finish(replace(ended(proposal, loss=0.0), objective=value))
    assert [trial.objective for trial in open_study(tmp_path).trials()] == [0.75, 1.25]
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    stored = optuna.load_study(study_name="autoquant", storage=storage).trials
    assert [trial.value for trial in stored if trial.value is not None] == [0.75, 1.25]


def test_the_same_seed_gives_the_same_trials(tmp_path):
    runs = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        runs.append([trial.plan for trial in play(open_study(tmp_path / name, seed=seed), 15)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = [trial.plan for trial in play(open_study(tmp_path / "whole"), 12)]
    parts = [trial.plan for _ in range(4) for trial in play(open_study(tmp_path / "parts"), 3)]
    assert parts == whole


def test_tpe_finds_the_layer_that_hurts(tmp_path):
    trials = play(open_study(tmp_path), 40)
    good = [trial for trial in trials if trial.drop is not None and trial.drop <= 0.01]
    assert max(trial.int8_share for trial in good) == pytest.approx(1 - 50 / 150)


def test_a_plan_is_carried_out_once_and_never_all_float(tmp_path):
    small = "[layer]\nquant_enable = [true, false]\n[[override]]\nlayers = ['l[0-2]']\nquant_enable = false"
    study = open_study(tmp_path, space=small)
    plans = []
    while (proposal := study.propose()) is not None:
        plans.append(proposal.plan)
        study.finish(ended(proposal, loss=0.0))
    assert sorted(sorted(plan.int8) for plan in plans) == [["l3"], ["l3", "l4"], ["l4"]]


def test_a_space_with_one_plan_ends(tmp_path):
    study = open_study(tmp_path, space="version = 1")
    assert len(play(study, 1)[0].plan.int8) == 5
    assert study.propose() is None


@pytest.mark.parametrize("told", [True, False], ids=["interrupted", "killed"])
def test_a_trial_that_did_not_end_is_proposed_again(tmp_path, told: bool):
    study = open_study(tmp_path)
    play(study, 3)
    lost = study.propose()
    assert lost is not None
    if told:
        study.cut_off()
    again = open_study(tmp_path).propose()
    assert again is not None
    assert again.plan == lost.plan
    assert again.why == f"again, cut off as {lost.number}"
    assert [trial.number for trial in open_study(tmp_path).trials()] == [0, 1, 2]


def test_a_plan_that_kills_its_process_is_given_up(tmp_path):
    play(open_study(tmp_path), 3)
    plans = []
    for _ in range(ATTEMPTS + 1):
        proposal = open_study(tmp_path).propose()
        assert proposal is not None
        plans.append(proposal)
    assert [proposal.plan for proposal in plans[:ATTEMPTS]] == [plans[0].plan] * ATTEMPTS
    assert plans[ATTEMPTS].why == "TPE"


def test_a_guided_study_follows_until_nothing_is_chosen(tmp_path):
    """After the starting point; what means a plan that was tried is passed over, and others come first."""
    space = SearchSpace(parse_space("[layer]\nquant_enable = [true, false]", "space"), LAYERS, batches=8)
    everything = dict.fromkeys(space.dimensions, True)
    points = [{**everything, "l1:quant_enable": False}, everything, {**everything, "l2:quant_enable": False}]
    asked = iter([*points, None])
    study = Study(tmp_path / "a.journal", space, allowed=0.01, proposer=Guided(lambda: next(asked), "told to"))
    trials = play(study, 3)
    assert [(trial.why, sorted(LAYER_NAMES - trial.plan.int8.keys())) for trial in trials] == [
        ("all INT8", []),
        ("told to", ["l1"]),
        ("told to", ["l2"]),
    ]
    assert study.propose() is None
    assert list(Study(tmp_path / "a.journal", space, allowed=0.01).trials()) == trials
