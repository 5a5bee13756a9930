"""The Optuna study: what it proposes, what it keeps, and what a process that dies leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from autoquant.calibration.plan import Plan
from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.tuning.study.space import SearchSpace
from autoquant.tuning.study.study import ATTEMPTS, Guided, Proposal, Study
from autoquant.tuning.study.trial import State, Trial
from autoquant.tuning.study.workload import Workload

LAYERS = [
    Layer(f"l{i}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 2, 4), (3,), None, None, 10 * (i + 1)) for i in range(5)
]
LAYER_NAMES = {layer.name for layer in LAYERS}
WORKLOAD = Workload(
    {layer.name: layer for layer in LAYERS}, {layer.name: layer.macs or 0 for layer in LAYERS}, "multiply-adds"
)
SPACE = """
[global]
batch_num = [2, 1]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


def open_study(folder: Path, *, space: str = SPACE, seed: int = 0) -> Study:
    resolved = SearchSpace(parse_space(space, "space"), LAYERS, batches=8)
    return Study(folder / "study.journal", resolved, seed=seed, allowed=0.01)


def ended(proposal: Proposal, *, loss: float | None) -> Trial:
    """A trial that ended with this drop, or failed."""
    plan = proposal.plan
    trial = Trial(
        number=proposal.number,
        state=State.FAILED,
        plan=plan,
        why=proposal.why,
        parameters=proposal.parameters,
        int8_share=WORKLOAD.int8_share(plan),
        objective=1.0 - WORKLOAD.int8_share(plan),
        qdq_ops=len(plan.int8),
        failure="no luck",
    )
    if loss is None:
        return trial
    return replace(
        trial, state=State.DONE, score=0.9 - loss, drop=loss, samples=100, seconds={"score": 1.5}, failure=""
    )


def loss_of(plan: Plan) -> float:
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


def test_all_int8_with_each_setting_comes_first(tmp_path: Path) -> None:
    trials = play(open_study(tmp_path), 3)
    assert [trial.why for trial in trials] == ["all INT8: 2 batches", "all INT8: 1 batch", "all INT8: minmax"]
    assert all(trial.int8_layers == 5 and trial.int8_share == 1.0 for trial in trials)
    assert [trial.plan.batch_num for trial in trials] == [2, 1, 2]


def test_what_is_told_is_read_back(tmp_path: Path) -> None:
    trials = play(open_study(tmp_path), 4)
    proposal = (study := open_study(tmp_path)).propose()
    assert proposal is not None
    trials.append(ended(proposal, loss=None))
    study.finish(trials[-1])
    assert list(open_study(tmp_path).trials()) == trials


def test_what_optuna_minimizes_is_the_objective_within_the_tolerance(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for value in (0.75, 1.25):
        proposal = study.propose()
        assert proposal is not None
        study.finish(replace(ended(proposal, loss=0.0), objective=value))
    assert [trial.objective for trial in open_study(tmp_path).trials()] == [0.75, 1.25]
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    stored = optuna.load_study(study_name="autoquant", storage=storage).trials
    assert [trial.value for trial in stored if trial.value is not None] == [0.75, 1.25]


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
    while (proposal := study.propose()) is not None:
        plans.append(proposal.plan)
        study.finish(ended(proposal, loss=0.0))
    assert sorted(sorted(plan.int8) for plan in plans) == [["l3"], ["l3", "l4"], ["l4"]]


def test_a_space_with_one_plan_ends(tmp_path: Path) -> None:
    study = open_study(tmp_path, space="version = 1")
    assert len(play(study, 1)[0].plan.int8) == 5
    assert study.propose() is None


@pytest.mark.parametrize("told", [True, False], ids=["interrupted", "killed"])
def test_a_trial_that_did_not_end_is_proposed_again(tmp_path: Path, told: bool) -> None:
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


def test_a_plan_that_kills_its_process_is_given_up(tmp_path: Path) -> None:
    play(open_study(tmp_path), 3)
    plans = []
    for _ in range(ATTEMPTS + 1):
        proposal = open_study(tmp_path).propose()
        assert proposal is not None
        plans.append(proposal)
    assert [proposal.plan for proposal in plans[:ATTEMPTS]] == [plans[0].plan] * ATTEMPTS
    assert plans[ATTEMPTS].why == "TPE"


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
    ids=["within", "not within", "set aside", "only compared"],
)
def test_trials_that_were_stopped_early(
    tmp_path: Path, facts: dict[str, Any], state: str, value: float | None, constraint: float | None
) -> None:
    """One that is proven to be within counts for Optuna as one that was scored on everything, others are pruned."""
    study = open_study(tmp_path)
    proposal = study.propose()
    assert proposal is not None
    trial = replace(ended(proposal, loss=None), state=State.STOPPED, failure="", objective=0.25, samples=40, **facts)
    study.finish(trial)
    frozen = stored(tmp_path)[proposal.number]
    assert (frozen.state.name, frozen.value if state == "COMPLETE" else None) == (state, value)
    assert frozen.constraints.get("drop") == (None if constraint is None else pytest.approx(constraint))
    assert frozen.intermediate_values == ({40: 0.25} if state == "PRUNED" and "drop" in facts else {})
    assert list(open_study(tmp_path).trials()) == [trial]


def test_what_became_known_later_is_known_when_the_study_is_opened_again(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    proposal = study.propose()
    assert proposal is not None
    aside: dict[str, Any] = {
        "state": State.STOPPED,
        "within": None,
        "drop": 0.02,
        "low": -0.1,
        "high": 0.3,
        "samples": 40,
    }
    study.finish(replace(ended(proposal, loss=None), failure="", **aside))
    (trial,) = study.trials()
    whole = replace(trial, state=State.DONE, score=0.9, drop=0.0, low=0.0, high=0.0, within=True, samples=240)
    study.correct(whole)
    assert study.trials() == open_study(tmp_path).trials() == (whole,)


class Given:
    """Lets points wait, one after the other, with what is asked of them."""

    def __init__(self, *points: tuple[dict[str, Any], dict[str, Any]]) -> None:
        self.points = list(points)

    def prepare(self, study: Any) -> bool:
        if any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False)):
            return True
        if not self.points:
            return False
        parameters, asked = self.points.pop(0)
        study.enqueue_trial(parameters, asked)
        return True


def open_given(folder: Path, *points: tuple[dict[str, Any], dict[str, Any]]) -> Study:
    space = SearchSpace(parse_space(SPACE, "space"), LAYERS, batches=8)
    return Study(folder / "study.journal", space, allowed=0.01, proposer=Given(*points), starts=[])


def point(**changed: Any) -> dict[str, Any]:
    space = SearchSpace(parse_space(SPACE, "space"), LAYERS, batches=8)
    return {**{name: choices[0] for name, choices in space.dimensions.items()}, **changed}


def raced(proposal: Proposal, samples: int) -> Trial:
    """Seen on so many samples, to be compared alone."""
    facts: dict[str, Any] = {
        "divergences": (0.5,),
        "divergence_samples": samples,
        "samples": samples,
        "max_samples": proposal.max_samples,
    }
    return replace(ended(proposal, loss=None), state=State.STOPPED, failure="", phase=proposal.phase, **facts)


def test_what_is_asked_of_a_point_comes_with_the_plan(tmp_path: Path) -> None:
    study = open_given(
        tmp_path, (point(), {"why": "race: ifmr", "phase": "race", "limit": 64}), (point(batch_num=1), {})
    )
    first = study.propose()
    assert first is not None
    assert (first.why, first.phase, first.max_samples) == ("race: ifmr", "race", 64)
    study.finish(raced(first, 64))
    second = study.propose()
    assert second is not None
    assert (second.phase, second.max_samples) == ("", None)
    (kept,) = open_given(tmp_path).trials()
    assert (kept.phase, kept.max_samples, kept.divergences) == ("race", 64, (0.5,))


def test_a_plan_is_tried_again_on_more_samples_and_only_then(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"limit": 64},
        {"limit": 64, "why": "once more"},
        {"limit": 32},
        {"limit": 128},
        {},
        {"limit": 256},
        {},
    ]
    study = open_given(tmp_path, *((point(), one) for one in asked))
    seen = []
    for samples in (64, 128, None):
        proposal = study.propose()
        assert proposal is not None
        seen.append(proposal.max_samples)
        whole = replace(ended(proposal, loss=0.0), divergence_samples=256)
        study.finish(raced(proposal, samples) if samples else whole)
    assert seen == [64, 128, None]
    assert study.propose() is None  # what was scored on everything tells all
    frozen = stored(tmp_path)
    assert [trial.user_attrs.get("repeats") for trial in frozen] == [None, 0, 0, None, None, 4, 4]
    assert [trial.state.name for trial in frozen] == ["PRUNED"] * 4 + ["COMPLETE"] * 3
    assert [trial.number for trial in open_given(tmp_path).trials()] == [0, 3, 4]
    assert frozen[6].value == frozen[4].value


@pytest.mark.parametrize("within", [False, None], ids=["decided early", "set aside"])
def test_a_plan_that_was_decided_is_not_tried_again(tmp_path: Path, within: bool | None) -> None:
    study = open_given(tmp_path, (point(), {}), (point(), {}), (point(batch_num=1), {}))
    proposal = study.propose()
    assert proposal is not None
    out: dict[str, Any] = {
        "state": State.STOPPED,
        "within": within,
        "drop": 0.2,
        "low": 0.1,
        "high": 0.3,
        "samples": 40,
        "failure": "",
    }
    study.finish(replace(ended(proposal, loss=None), **out))
    other = study.propose()
    assert other is not None
    assert other.plan.batch_num == 1


def test_what_was_cut_off_is_proposed_again_as_it_was_asked_for(tmp_path: Path) -> None:
    study = open_given(tmp_path, (point(), {"why": "race: ifmr", "phase": "race", "limit": 64}))
    lost = study.propose()
    assert lost is not None
    again = open_given(tmp_path).propose()
    assert again is not None
    assert (again.plan, again.phase, again.max_samples, again.why) == (lost.plan, "race", 64, "again, cut off as 0")


def test_a_plan_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    """Of equals the one with the lowest number is carried out."""
    first = open_given(tmp_path, (point(), {}))
    second = open_given(tmp_path, (point(), {}), (point(batch_num=1), {}))
    one, other = first.propose(), second.propose()
    assert one is not None
    assert other is not None
    assert (one.plan.batch_num, other.plan.batch_num) == (2, 1)
    assert [trial.user_attrs.get("skipped") for trial in stored(tmp_path)] == [None, "the same as trial 0", None]


def test_a_guided_study_follows_until_nothing_is_chosen(tmp_path: Path) -> None:
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
