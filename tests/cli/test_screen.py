from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from autoquant.cli.screen import begun_again, live_screen, render
from autoquant.cli.state import SearchState, update
from autoquant.tuning.events import (
    BaselineScored,
    DataSplit,
    Event,
    Finished,
    Opened,
    Progress,
    TrialEnded,
    TrialStarted,
    Warned,
    WorkerHere,
    WorkersSeen,
)
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import Trial

OPENED = Opened(Path("runs/net-1"), "net", 3, 2_656_768, 800, 200, 50, 7200.0)
BASELINE = BaselineScored("top1", 0.75, 0.125)


def screen(*events: Event, width: int = 100, now: float = 0.0) -> str:
    """What is shown at `now` after events one second apart, from 1 s on."""
    state = SearchState()
    for second, event in enumerate(events, start=1):
        state = update(state, event, float(second))
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False).print(render(state, now))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).rstrip()


def rows(*events: Event, now: float = 0.0) -> list[str]:
    """The same line by line, with single blanks."""
    return [" ".join(line.split()) for line in screen(*events, now=now).splitlines()]


def test_before_anything_is_known() -> None:
    assert rows() == ["autoquant reading model and data ..."]


def test_while_the_baseline_is_scored() -> None:
    shown = rows(OPENED, Progress("baseline", 100, 800), Progress("baseline", 200, 800), now=3.0)
    assert shown == [
        "model net: 3 layers, 2.7 M multiply-adds",
        "data 800 samples",
        "calibration 200 samples",
        "run runs/net-1",
        "baseline " + "━" * 7 + " 200/800 100/s 6.0s left",
        "budget 0 of 50 trials, 2.0s of 2h00m",
    ]


def test_while_nothing_can_be_counted() -> None:
    assert rows(Progress("loading TensorFlow", 0, 0), now=13.0) == ["loading TensorFlow 12s so far"]
    shown = rows(OPENED, BASELINE, TrialStarted(2, "TPE", 2, 0.625), Progress("building trial 2", 0, 0), now=9.0)
    assert shown[-3:] == [
        "trial 2 TPE; 2/3 layers in INT8, 62.5%",
        "building trial 2 5.0s so far",
        "budget 0 of 50 trials, 8.0s of 2h00m",
    ]


def test_no_full_bar_stands_while_a_phase_goes_on() -> None:
    """What comes after the last step is not counted."""
    steps = [Progress("layers", done, 16) for done in (0, 8, 16)]
    assert rows(*steps, now=3.5) == ["layers " + "━" * 28 + " 16/16 8.0/s"]
    assert rows(*steps, now=143.0) == ["layers 2m22s so far"]


def test_in_the_middle(trial: Callable[..., Trial]) -> None:
    """The one screen that is tested as a whole, blanks included."""
    events = (
        OPENED,
        BASELINE,
        TrialStarted(0, "all INT8: batch_num=8", 3, 1.0),
        TrialEnded(trial(0, why="all INT8: batch_num=8", drop=0.5), trial(0, drop=0.5), 1, 30.0),
        TrialStarted(1, "TPE", 2, 0.625),
        TrialEnded(trial(1, drop=0.0625), trial(1, drop=0.0625), 2, 40.0),
        TrialStarted(2, "TPE", 2, 0.625),
        Progress("trial 2", 400, 800),
    )
    assert screen(*events, now=9.0).splitlines() == [
        "model        net: 3 layers, 2.7 M multiply-adds",
        "data         800 samples",
        "calibration  200 samples",
        "run          runs/net-1",
        "FP32         top1 0.7500; max drop 0.1250",
        "best         0.6875, drop 0.0625; 2/3 layers in INT8, 62.5%; trial 1",
        "trial 2      TPE; 2/3 layers in INT8, 62.5%",
        "             " + "━" * 14 + " " * 16 + "400/800",
        "budget       2 of 50 trials, 43s of 2h00m",
        "",
        "trial  what is tried" + " " * 35 + "INT8  share  samples   score    drop  verdict",
        "    0  all INT8: batch_num=8" + " " * 28 + "2/3  62.5%       80  0.2500  0.5000  missed",
        "    1  TPE" + " " * 46 + "2/3  62.5%       80  0.6875  0.0625  met",
    ]


def test_another_objective_and_conversions_have_columns(trial: Callable[..., Trial]) -> None:
    opened = replace(OPENED, objective="bytes")
    failed = trial(1, drop=None, failure="NaN")
    ended = [TrialEnded(one, trial(0), 1, 1.0) for one in (trial(0, qdq_ops=2), failed)]
    assert rows(opened, BASELINE, *ended)[-4:] == [
        "trial what is tried INT8 share bytes Q/DQ samples score drop verdict",
        "0 TPE 2/3 62.5% 37.5% 2 80 0.5000 0.2500 missed",
        "1 TPE 2/3 62.5% 37.5% 80 failed",
        "NaN",
    ]


def test_a_missed_search_shows_why_it_ended_and_no_running_trial(
    trial: Callable[..., Trial], result: Callable[..., SearchResult]
) -> None:
    missed = result(trial(0), best=trial(0), met=False)
    shown = rows(OPENED, BASELINE, TrialEnded(trial(0), trial(0), 1, 75.0), Finished(missed), now=99.0)
    assert f"ended {missed.ended}" in shown
    assert "budget 1 of 50 trials, 1m15s of 2h00m" in shown
    assert "best 0.5000, drop 0.2500; 2/3 layers in INT8, 62.5%; trial 0" in shown


def test_a_failed_trial_shows_its_reason_and_no_number(trial: Callable[..., Trial]) -> None:
    failed = trial(3, drop=None, failure="conv1: the output is NaN; leave it in float")
    shown = rows(OPENED, BASELINE, TrialEnded(failed, None, 1, 5.0))
    assert "best none yet" in shown
    assert shown[-2:] == ["3 TPE 2/3 62.5% 80 failed", "conv1: the output is NaN; leave it in float"]


def test_trials_that_were_stopped_early_show_what_is_known(stopped: Callable[..., Trial]) -> None:
    raced, met = stopped(0, samples=64), stopped(2, samples=1600, drop=0.0625, within=True)
    missed, screened = stopped(1, samples=128, drop=0.25, within=False), stopped(3, samples=530, drop=0.125)
    ended = [TrialEnded(one, missed, 1, 1.0) for one in (raced, missed, met, screened)]
    assert rows(OPENED, BASELINE, *ended)[-4:] == [
        "0 race 2/3 62.5% 64 undecided",
        "1 race 2/3 62.5% 128 ~0.2500 missed",
        "2 race 2/3 62.5% 1,600 ~0.0625 met",
        "3 race 2/3 62.5% 530 ~0.1250 screened out",
    ]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (DataSplit(400, 350, ""), "400 samples for the search, 350 holdout"),
        (DataSplit(800, 0, "there are too few"), "800 samples for the search, no holdout: there are too few"),
    ],
)
def test_the_split_of_the_data_is_shown(parts: DataSplit, words: str) -> None:
    assert rows(OPENED, BASELINE, parts)[1] == f"data {words}"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_whatever_the_names_every_line_fits(
    width: int, trial: Callable[..., Trial], stopped: Callable[..., Trial]
) -> None:
    long = "functional_1/block_with_a_long_name/depthwise_convolution_with_batch_norm_" * 3
    opened = Opened(Path("/a/very/deep") / long / "run", long, 3, None, 800, 200, 50, float("inf"))
    failed = trial(1, drop=None, why=long, failure=long)
    shown = screen(
        opened,
        BASELINE,
        TrialEnded(trial(0, why=long), trial(0), 1, 1.0),
        TrialEnded(failed, trial(0), 2, 2.0),
        TrialEnded(stopped(2, samples=12_800, drop=-0.0625, within=True), trial(0), 3, 3.0),
        DataSplit(123_456, 123_456, long),
        TrialStarted(2, long, 2, 0.5),
        Progress("trial 2", 50, 800),
        Warned(long),
        width=width,
    )
    assert max(map(len, shown.splitlines())) <= width
    assert "0.5000" in shown
    assert "failed" in shown or width == 40


def test_the_screen_redraws_what_it_is_told() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    with live_screen(console, lambda: 0.0) as listener:
        listener(OPENED)
        listener(BASELINE)
    assert "top1 0.7500; max drop 0.1250" in file.getvalue()


LONG = ("race per-channel, biases corrected (64 samples)", "race per-channel, biases corrected (128 samples)")


@pytest.mark.parametrize("width", [60, 80, 90, 120])
def test_words_that_tell_trials_apart_are_not_cut(trial: Callable[..., Trial], width: int) -> None:
    ended = [trial(number, why=why, drop=0.0625) for number, why in enumerate(LONG)]
    text = screen(OPENED, BASELINE, *(TrialEnded(one, one, one.number + 1, 1.0) for one in ended), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = " ".join(text[text.index("what is tried") :].split())
    for needed in ("(64", "(128", "per-channel,", "corrected", "samples)"):
        assert needed in words
    assert ("score" in words) == ("share" in words) == (width >= 90)
    assert words.count("met") == len(LONG)


def test_after_a_change_of_width_nothing_of_the_old_lines_is_left() -> None:
    """They were folded anew by the terminal: the screen is begun again, once for each change."""
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True)
    draw = begun_again(console, lambda: "state")
    for width, cleared in ((100, 0), (60, 1), (60, 1), (100, 2)):
        console.width = width
        assert draw() == "state"
        assert file.getvalue() == cleared * "\x1b[2J\x1b[H"


def test_the_last_screen_names_the_report(
    tmp_path: Path, trial: Callable[..., Trial], result: Callable[..., SearchResult]
) -> None:
    finished = replace(result(trial(0), best=trial(0), met=True), run=tmp_path)
    assert not any("report" in row for row in rows(OPENED, Finished(finished)))
    (tmp_path / "report.html").touch()
    assert any(row.startswith("report /") for row in rows(OPENED, Finished(finished)))


def here(number: int, doing: str = "", trials: int = 0) -> WorkerHere:
    return WorkerHere(number, "gpu-1", 100 + number, doing, trials)


def test_workers_are_shown_with_what_they_do() -> None:
    seen = WorkersSeen((here(1, "trial 7 120/800", 2), here(2)))
    shown = rows(OPENED, BASELINE, Progress("waiting for workers", 0, 0), seen, now=4.0)
    assert shown[-4:-1] == [
        "worker 1 gpu-1: trial 7 120/800; 2 trials",
        "worker 2 gpu-1: joined; 0 trials",
        "waiting for workers 1.0s so far",
    ]
    many = rows(OPENED, WorkersSeen(tuple(map(here, range(20)))))
    assert sum(line.startswith("worker ") for line in many) == 8 and "and 12 workers more" in many
