from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.trial import State, Trial, best

PLAN = Plan({"conv1": LayerPlan(), "conv2": None})


def done(number: int, share: float, drop: float) -> Trial:
    """A trial whose objective is the share in float."""
    return Trial(
        number,
        State.DONE,
        PLAN,
        "test",
        int8_share=share,
        objective=1.0 - share,
        score=0.8 - drop,
        drop=drop,
        samples=100,
    )


def failed(number: int) -> Trial:
    return Trial(number, State.FAILED, PLAN, "test", objective=0.0, failure="overflow", samples=7)


@pytest.mark.parametrize(
    ("trials", "number"),
    [
        ([], None),
        ([failed(0), failed(1)], None),
        ([failed(0), done(1, 0.1, 0.5)], 1),
        ([done(0, 0.5, 0.0), done(1, 0.9, 0.009)], 1),
        ([done(0, 0.9, 0.009), done(1, 0.9, 0.001)], 1),
        ([done(0, 0.9, -0.01), done(1, 0.9, 0.0)], 0),
        ([done(3, 0.9, 0.001), done(2, 0.9, 0.001)], 2),
        ([done(0, 1.0, 0.011), done(1, 0.1, 0.01)], 1),
        ([done(0, 1.0, 0.03), done(1, 0.1, 0.02)], 1),
        ([done(0, 0.5, 0.02), done(1, 0.6, 0.02)], 1),
        ([done(5, 0.5, 0.02), done(4, 0.5, 0.02)], 4),
        ([done(0, 1.0, math.inf), failed(1)], 0),
    ],
    ids=[
        "none",
        "all failed",
        "the one that did not fail",
        "more INT8 within the tolerance",
        "a tie goes to the smaller drop",
        "better than FP32",
        "then to the earlier",
        "within comes before more INT8",
        "none within: the closest",
        "none within: a tie goes to more INT8",
        "none within: then to the earlier",
        "an infinite drop is better than nothing",
    ],
)
def test_best(trials: list[Trial], number: int | None) -> None:
    for order in itertools.permutations(trials):
        kept = best(order, 0.01)
        assert (kept.number if kept else None) == number


def test_the_objective_decides_and_not_the_share() -> None:
    small, fast = done(0, 0.9, 0.0), replace(done(1, 0.5, 0.0), objective=0.0625)
    assert best([small, fast], 0.01) is fast


DROP = st.floats(-0.05, 0.05)
TRIALS = st.lists(st.tuples(st.floats(0.0, 1.0), DROP | st.none()), max_size=6).map(
    lambda facts: [failed(n) if drop is None else done(n, share, drop) for n, (share, drop) in enumerate(facts)]
)


@given(TRIALS)
def test_nothing_is_better_than_the_best(trials: list[Trial]) -> None:
    kept = best(iter(trials), 0.01)
    finished = [trial for trial in trials if trial.drop is not None]
    assert (kept is None) == (not finished)
    for other in finished:
        assert kept is not None and kept.drop is not None and other.drop is not None
        if kept.drop <= 0.01:
            assert other.drop > 0.01 or other.objective >= kept.objective
        elif other.drop > 0.01 * 1.0001:
            assert other.drop >= kept.drop


@pytest.mark.parametrize("drop", [None, math.nan])
def test_a_trial_that_is_done_has_a_drop(drop: float | None) -> None:
    with pytest.raises(ValueError, match="a trial that is done has a drop, which is a number"):
        Trial(0, State.DONE, PLAN, "test", score=0.5, drop=drop)


@pytest.mark.parametrize("kept", [done(0, 0.5, 0.25), None])
def test_result(kept: Trial | None) -> None:
    trials = (done(0, 0.5, 0.25), failed(1))
    result = SearchResult(
        verdict=Verdict.MISSED,
        metric="top1",
        baseline=0.8,
        max_drop=0.01,
        worst_score=0.79,
        best=kept,
        trials=trials,
        layers=2,
        seconds=1.0,
        model=None,
        run=Path("run"),
        ended=Ended.TRIALS,
    )
    assert result.evaluated_samples == 107
    expected = (pytest.approx(0.55), 0.25) if kept else (None, None)
    assert (result.score, result.drop) == expected
    assert trials[0].layers == 2
