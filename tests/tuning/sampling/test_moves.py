"""Plans that are tried near one that just missed."""

from __future__ import annotations

from dataclasses import replace

from guided_problems import Synthetic, trial_of

from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.moves import ALIKE, MIXED, mixtures
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import int8_of, start_of
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.trial import State

LAYERS = tuple("abcdefgh")
KINDS = {"r0": 0.01, "r1": 0.01 * ALIKE * 0.99, "r2": 0.01 * ALIKE * 1.01}
"""Of three settings of each layer the first two are nearly as good, by prediction."""


def plans_of(*, probe_drops: tuple[float, ...] = ()) -> Plans:
    """Everything in INT8 has just missed."""
    even = dict.fromkeys(LAYERS, KINDS)
    problem = Synthetic(dict.fromkeys(LAYERS, 0.125), even, even, max_drop=0.001, total=4000)
    missed = trial_of(Suggestion(start_of(problem), "why"), 0, State.DONE, samples=4000, drop=0.0015, within=False)
    history = History.of([replace(missed, probe_drops=probe_drops)], problem)
    return Plans(history, start_of(problem), history.predictions(start_of(problem)))


def test_settings_that_are_predicted_to_be_nearly_as_good_are_mixed() -> None:
    plans = plans_of()
    found = [plans.history.coding.decode(move.codes) for move in mixtures(plans)]
    assert len(found) == MIXED
    for point in found:
        assert int8_of(point, plans.problem) == set(LAYERS)
        assert {point[f"{layer}:act_algo"] for layer in LAYERS} == {"r0", "r1"}
    assert found[0] != found[1]
    assert found == [plans.history.coding.decode(move.codes) for move in mixtures(plans_of())]  # always the same


def test_after_another_trial_they_are_others() -> None:
    before = plans_of()
    (missed,) = before.history.trials
    more = History.of([missed, replace(missed, number=1, drop=0.1)], before.problem)
    after = Plans(more, before.base, before.table)
    assert [move.codes.tolist() for move in mixtures(after)] != [move.codes.tolist() for move in mixtures(before)]


def test_where_few_samples_tell_of_the_drop_nothing_is_left_to_chance() -> None:
    assert not list(mixtures(plans_of(probe_drops=(0.0001,))))
