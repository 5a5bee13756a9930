"""The history: what it takes over from an earlier one, and what distinguishes plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from guided_problems import play, random_problem, trial_of

from autoquant.tuning.sampling.coding import Coding, Layers
from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.infeasible import Infeasible
from autoquant.tuning.sampling.problem import gain_of, int8_of, start_of, with_int8
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.trial import State

PROBLEM = replace(random_problem(51, layers=4, ranges=2), harm={"batch_num": {8: 1.0, 1: 1.2}})
TRIALS = play(PROBLEM, open_sampler("random", PROBLEM), budget=1000.0, most=9).trials


def test_points_are_coded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    coded: list[Parameters] = []
    own = Coding.encode

    def counted(coding: Coding, point: Parameters) -> object:
        coded.append(point)
        return own(coding, point)

    before = History.of(TRIALS[:6], PROBLEM)
    monkeypatch.setattr(Coding, "encode", counted)
    History.of(TRIALS, PROBLEM, before)
    assert {id(point) for point in coded} == {id(trial.parameters) for trial in TRIALS[6:]}


def test_gains_are_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is that of the trial's layers in INT8."""
    added: list[object] = []
    own = History.gain_of

    def counted(history: History, int8: Layers) -> float:
        added.append(int8)
        return own(history, int8)

    before = History.of(TRIALS[:6], PROBLEM)
    monkeypatch.setattr(History, "gain_of", counted)
    history = History.of(TRIALS, PROBLEM, before)
    assert len(added) == len(TRIALS) - 6
    assert history.gains.tolist() == [gain_of(int8_of(trial.parameters, PROBLEM), PROBLEM) for trial in TRIALS]


@pytest.mark.parametrize(
    ("facts", "near"),
    [
        ({"state": State.DONE, "drop": 4.9 * PROBLEM.max_drop, "within": False}, True),
        ({"state": State.DONE, "drop": 5.1 * PROBLEM.max_drop, "within": False}, False),
        ({"state": State.DONE, "drop": 0.0, "within": True}, False),
        ({"state": State.STOPPED, "drop": 0.0, "within": None, "samples": 64}, True),
        ({"state": State.STOPPED, "drop": 0.0, "within": False, "samples": 64}, False),
        ({"state": State.FAILED}, False),
        ({"state": State.RUNNING}, False),
    ],
    ids=["just missed", "far off", "within", "undecided", "proven out early", "failed", "running"],
)
def test_near_misses(facts: dict[str, Any], near: bool) -> None:
    trial = replace(trial_of(Suggestion(start_of(PROBLEM), "why"), 0), **facts)
    assert History.of([trial], PROBLEM).near_misses.tolist() == [near]


def test_what_is_taken_over_is_what_would_be_found() -> None:
    """Also where trials have ended since, or are others."""
    running = [replace(trial, state=State.RUNNING, drop=None, within=None) for trial in TRIALS]
    history = History.of([], PROBLEM)
    for trials in (running[:3], [*TRIALS[:2], *running[2:5]], TRIALS, TRIALS[4:], TRIALS[:1]):
        history, new = History.of(trials, PROBLEM, history), History.of(trials, PROBLEM)
        assert history.keys == new.keys
        assert (history.codes == new.codes).all()
        assert (history.gains == new.gains).all()
        assert history.trials == tuple(trials)


def test_a_point_is_what_its_row_means() -> None:
    coding = Coding(PROBLEM)
    for trial in TRIALS:
        row = coding.encode(trial.parameters)
        assert coding.decode(row) == trial.parameters
        int8 = [layer for layer, own in zip(coding.switches, coding.int8(row), strict=True) if own]
        assert set(int8) == int8_of(trial.parameters, PROBLEM)
        gain = History.of([], PROBLEM).gain_of(coding.int8(row))
        assert gain == gain_of(int8_of(trial.parameters, PROBLEM), PROBLEM)


@pytest.mark.parametrize(
    ("changed", "same"),
    [({"l01:act_algo": "r1"}, True), ({"l00:act_algo": "r1"}, False), ({"batch_num": 1}, False)],
    ids=["of a layer in float", "of a layer in INT8", "of the whole model"],
)
def test_settings_of_layers_in_float_mean_nothing(changed: Parameters, same: bool) -> None:
    point, coding = with_int8(start_of(PROBLEM), PROBLEM, {"l00"}), Coding(PROBLEM)
    assert (coding.key({**point, **changed}) == coding.key(point)) is same


@pytest.mark.parametrize(
    ("facts", "excluded"),
    [
        ({"state": State.DONE, "drop": 0.5, "within": False}, {"l00 l01", "l00 l01 l02"}),
        ({"state": State.DONE, "drop": 0.0, "within": True}, set()),
        ({"state": State.FAILED, "at_fault": "l00"}, {"l00", "l00 l01", "l00 l01 l02"}),
        ({"state": State.FAILED}, {"l00 l01", "l00 l01 l02"}),
        ({"state": State.RUNNING}, {"l00 l01", "l00 l01 l02"}),
        ({"state": State.STOPPED, "max_samples": 64, "drop": 0.5}, set()),
    ],
    ids=["missed", "within", "failed by a layer", "failed", "running", "raced"],
)
def test_what_a_trial_excludes(facts: dict[str, Any], excluded: set[str]) -> None:
    """Of plans with these layers in INT8, after one trial of l00 and l01."""
    trial = replace(trial_of(Suggestion(with_int8(start_of(PROBLEM), PROBLEM, {"l00", "l01"}), "why"), 0), **facts)
    infeasible, coding = Infeasible(History.of([trial], PROBLEM)), Coding(PROBLEM)
    found = set()
    for words in ("l00", "l01", "l02", "l00 l01", "l00 l01 l02"):
        point = with_int8(start_of(PROBLEM), PROBLEM, words.split())
        if infeasible.excludes(coding.encode(point)):
            found.add(words)
        assert not infeasible.excludes(coding.encode({**point, "batch_num": 1}))
    assert found == excluded
    assert np.count_nonzero(infeasible.assumed_infeasible(coding.encode(start_of(PROBLEM))).any(axis=1)) <= 1
