"""The Pareto front against its definition, and which models are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.plan import Plan
from autoquant.tuning.study.pareto import kept_trials, pareto_front
from autoquant.tuning.study.trial import State, Trial, best

FEW = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def trial(number: int, drop: float | None, share: float, state: State = State.DONE) -> Trial:
    return Trial(number, state, Plan({}), "", drop=drop, int8_share=share, objective=1.0 - share)


def beats(one: Trial, other: Trial) -> bool:
    """Whether one is as good in both, and better in one, or the same but earlier."""
    assert one.drop is not None and other.drop is not None
    as_good = one.drop <= other.drop and one.int8_share >= other.int8_share
    return as_good and ((one.drop, one.int8_share) != (other.drop, other.int8_share) or one.number < other.number)


@given(st.lists(st.tuples(FEW, FEW), max_size=12))
def test_it_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    trials = [trial(number, *point) for number, point in enumerate(points)]
    front = pareto_front(trials)
    assert {one.number for one in front} == {
        one.number for one in trials if not any(beats(other, one) for other in trials)
    }
    shares = [one.int8_share for one in front]
    assert shares == sorted(shares, reverse=True)


def test_only_trials_with_a_score_are_in_it() -> None:
    others = [trial(1, 0.0, 1.0, State.STOPPED), trial(2, None, 1.0, State.FAILED), trial(3, None, 1.0, State.RUNNING)]
    trials = [trial(0, 0.5, 0.5), *others]
    assert [one.number for one in pareto_front(trials)] == [0]
    assert [one.number for one in pareto_front(trials, estimates=True)] == [1]
    assert pareto_front([trial(1, None, 1.0, State.STOPPED)], estimates=True) == pareto_front([]) == ()


def test_the_best_are_kept_in_their_order() -> None:
    """Within a drop of 0.25: those within by their share, then those that come closest; beaten ones never."""
    trials = [
        trial(0, 0.9, 1.0, State.STOPPED),
        trial(1, 0.2, 0.5),
        trial(2, 0.0, 0.25),
        trial(3, 0.4, 0.75, State.STOPPED),
        trial(4, 0.2, 0.25),
        trial(5, None, 1.0, State.STOPPED),
    ]
    kept = best(trials, 0.25)

    def numbers(count: int) -> list[int]:
        return [one.number for one in kept_trials(trials, kept, 0.25, count)]

    assert [numbers(count) for count in (1, 2, 3, 4, 9)] == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 0], [1, 2, 3, 0]]
    assert kept_trials(trials, None, 0.25, 3) == ()
    beaten = trial(6, 0.5, 0.25)
    assert [one.number for one in kept_trials(trials, beaten, 0.25, 2)] == [6, 1], "the best is kept in any case"
