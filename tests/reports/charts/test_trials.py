"""Where trials are drawn, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.reports.charts.drop import Measured, drop_chart
from autoquant.reports.charts.layers import BARS, Place, layer_strip
from autoquant.reports.charts.trials import HISTORY, Mark, history, mark_of, trade_off
from autoquant.tuning.study.pareto import pareto_front
from autoquant.tuning.study.trial import State, Trial

PLAN = Plan({"conv": LayerPlan(), "fc": None})
Make = Callable[..., Trial]
MAX_DROP = 0.125


@pytest.fixture
def made(ended: Make) -> Callable[..., Trial]:
    def make(number: int, share: float, drop: float | None, **facts: Any) -> Trial:
        known = {"score": 0.75 - drop} if drop is not None and "state" not in facts else {"drop": drop}
        return ended(number, PLAN, **{**known, "int8_share": share, "samples": 10, **facts})

    return make


@pytest.mark.parametrize(
    ("facts", "mark"),
    [
        ({"score": 0.75}, Mark.MET),
        ({"score": 0.5}, Mark.MISSED),
        ({"drop": 0.1, "within": True}, Mark.NEARLY),
        ({"drop": 0.5, "within": False}, Mark.MISSED),
        ({"drop": 0.5, "within": None}, Mark.UNDECIDED),
        ({"max_samples": 64, "within": None}, Mark.UNDECIDED),
        ({"state": State.FAILED, "failure": "overflow"}, Mark.FAILED),
    ],
)
def test_marks_say_what_a_trial_has_shown(ended: Make, facts: dict[str, Any], mark: Mark) -> None:
    assert mark_of(ended(0, PLAN, **facts), MAX_DROP) is mark


def test_the_front_has_what_no_other_trial_beats(made: Make) -> None:
    trials = [
        made(0, 1.0, 0.5),
        made(1, 0.75, 0.25),
        made(2, 0.75, 0.3),
        made(3, 0.5, 0.25),
        made(4, 0.25, 0.0),
        made(5, 0.9, 0.0, state=State.STOPPED, within=True),
        made(6, 1.0, 0.5),
    ]
    assert [one.number for one in pareto_front(trials)] == [0, 1, 4]


def test_more_accurate_is_higher_and_more_in_int8_further_right(made: Make) -> None:
    trials = [made(0, 1.0, 0.25), made(1, 0.5, 0.0), made(2, 0.75, 9.0), made(3, 0.75, None)]
    chart = trade_off(trials, trials[1], baseline=0.75, max_drop=MAX_DROP, higher_is_better=True)
    places = {point.trial: point for point in chart.points}
    assert places.keys() == {0, 1, 2}
    assert places[1].x < places[2].x < places[0].x
    assert places[1].y == chart.baseline < chart.tolerance < places[0].y < places[2].y
    assert [point.beyond for point in chart.points] == [False, False, True]
    assert (chart.beyond, chart.best) == (1, places[1])
    low, *_, high = sorted(chart.y_ticks, key=lambda tick: float(tick.text))
    step = (low.at - high.at) / (float(high.text) - float(low.text))  # pixels down for each less of the score
    assert chart.tolerance - chart.baseline == pytest.approx(step * MAX_DROP, abs=0.1)
    assert low.at - chart.baseline == pytest.approx(step * (0.75 - float(low.text)), abs=0.1)
    assert [tick.text for tick in chart.x_ticks][-1] == "100%"


def test_where_less_is_better_the_axis_counts_up_from_the_baseline(made: Make) -> None:
    trials = [made(0, 1.0, 0.1)]
    chart = trade_off(trials, None, baseline=2.0, max_drop=MAX_DROP, higher_is_better=False)
    ticks = sorted(chart.y_ticks, key=lambda tick: tick.at)
    values = [float(tick.text) for tick in ticks]
    assert values == sorted(values)
    assert next(tick.at for tick in ticks if float(tick.text) == 2.0) == pytest.approx(chart.baseline)


def test_history_is_in_order_with_bars_as_tall_as_samples_are_many(made: Make) -> None:
    trials = [made(0, 1.0, 0.1), made(3, 1.0, None, samples=40), made(4, 1.0, 99.0, samples=80)]
    chart = history(trials, trials[0], max_drop=MAX_DROP, samples=80)
    assert [point.trial for point in chart.points] == [0, 3, 4]
    assert sorted(point.x for point in chart.points) == [point.x for point in chart.points]
    heights = [bar.height for bar in chart.bars]
    assert heights[1] == pytest.approx(heights[2] / 2)
    assert all(bar.y + bar.height == pytest.approx(chart.bars_height) for bar in chart.bars)
    assert (chart.unknown, chart.beyond) == (1, 1)
    assert chart.points[1].y == chart.points[2].y == HISTORY - 5.0
    assert [tick.text for tick in chart.x_ticks] == ["0", "3", "4"]


@pytest.mark.parametrize("drop", [0.0, None])
def test_one_trial_has_a_place(made: Make, drop: float | None) -> None:
    trials = [made(0, 1.0, drop)]
    assert len(history(trials, None, max_drop=0.0, samples=0).points) == 1
    trade_off(trials, None, baseline=0.75, max_drop=0.0, higher_is_better=True)


def test_thousand_trials_keep_their_order_within_the_width(made: Make) -> None:
    chart = history([made(number, 1.0, 0.1) for number in range(1000)], None, max_drop=MAX_DROP, samples=10)
    xs = [point.x for point in chart.points]
    assert xs == sorted(set(xs))
    assert 0.0 < xs[0] < xs[-1] < 100.0
    assert all(bar.x > 0.0 and bar.x + bar.width < 100.0 for bar in chart.bars)


def test_the_drop_has_fp32_the_tolerance_and_all_ends_in_it() -> None:
    rows = [Measured("search", 0.01, 0.01, 0.01, "circle", ""), Measured("holdout", 0.02, None, 0.09, "diamond", "")]
    chart = drop_chart(rows, 0.05)
    search, holdout = chart.rows
    assert search.left == search.right == search.x
    assert holdout.open_left
    assert holdout.left == 1.0
    assert holdout.right is not None
    assert chart.zero < search.x < holdout.x < chart.tolerance < holdout.right < 99.0
    assert search.y < holdout.y < chart.height


def test_layers_are_as_wide_as_they_are_costly_side_by_side() -> None:
    strip = layer_strip([10, 30, 0, 60], [Place.INT8, Place.FLOAT, Place.INT8, Place.CANNOT], [0.1, 0.001, 1e-9, None])
    first, second, third, last = strip.cells
    assert second.width == pytest.approx(3 * first.width, rel=1e-2)
    assert last.width == pytest.approx(2 * second.width, rel=1e-2)
    assert 0.0 < third.width < first.width
    assert second.x == pytest.approx(first.x + first.width, abs=1e-3)
    assert last.x + last.width == pytest.approx(100.0, abs=1e-2)
    assert [cell.shade for cell in strip.cells] == [4, 1, 0, None]
    assert (first.bar, last.bar) == (BARS - 4, None)
    assert (strip.limits[0], strip.limits[-1]) == pytest.approx((1e-4, 0.1))


@pytest.mark.parametrize("losses", [[None, None], [0.0, 0.0]])
def test_without_any_loss_there_are_neither_bars_nor_limits(losses: list[float | None]) -> None:
    strip = layer_strip([1, 1], [Place.INT8, Place.INT8], losses)
    assert [cell.bar for cell in strip.cells] == [None, None]
    assert strip.limits == ()
