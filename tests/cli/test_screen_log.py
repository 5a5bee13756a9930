from collections.abc import Callable
from pathlib import Path

from autoquant.cli.screen import PlainScreen
from autoquant.tuning.events import (
    BaselineScored,
    Calibrated,
    DataSplit,
    Event,
    Finished,
    Opened,
    Progress,
    Resumed,
    TrialEnded,
    TrialStarted,
    Warned,
)
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import Trial

OPENED = Opened(Path("run"), "net", 1, None, 800, 200, 50, 60.0)
BASELINE = BaselineScored("top1", 0.75, 0.125)


def lines(*events: tuple[float, Event], verbose: bool = False) -> list[str]:
    """What is written when events come at these times; the screen begins at 0."""
    written: list[str] = []
    now = [0.0]
    screen = PlainScreen(written.append, lambda: now[0], verbose=verbose)
    for time, event in events:
        now[0] = time
        screen(event)
    return written


def test_every_event_has_its_line(trial: Callable[..., Trial], result: Callable[..., SearchResult]) -> None:
    best = trial(1, drop=0.0625)
    finished = result(best, best=best, met=True)
    assert lines(
        (1.0, OPENED),
        (2.0, BASELINE),
        (3.0, Calibrated(1)),
        (4.0, TrialStarted(0, "TPE", 2, 0.625)),
        (70.0, TrialEnded(trial(0, drop=None, failure="conv1: NaN"), None, 1, 1.0)),
        (80.0, TrialEnded(best, best, 2, 2.0)),
        (3700.0, TrialEnded(trial(2, drop=0.25), best, 3, 3.0)),
        (3701.0, Warned("look at this")),
        (3702.0, Finished(finished)),
    ) == [
        "[  1.0s] model: net: 1 layer, unknown multiply-adds",
        "[  1.0s] data: 800 samples",
        "[  1.0s] calibration: 200 samples",
        "[  1.0s] run: run",
        "[  2.0s] FP32: top1 0.7500; max drop 0.1250",
        "[  3.0s] calibration: 200 samples, 1 batch",
        "[ 1m10s] trial 0: failed, conv1: NaN; INT8 2/3, share 62.5%, samples 80; TPE",
        "[ 1m20s] trial 1: met; INT8 2/3, share 62.5%, samples 80, score 0.6875, drop 0.0625; TPE; best so far",
        "[ 1h01m] trial 2: missed; INT8 2/3, share 62.5%, samples 80, score 0.5000, drop 0.2500; TPE; best is trial 1",
        "[ 1h01m] warning: look at this",
        f"[ 1h01m] ended: {finished.ended}",
    ]


def test_progress_is_written_every_ten_seconds_at_most() -> None:
    progress = [(float(second), Progress("trial 0", second * 10, 1000)) for second in range(1, 36)]
    assert lines((0.0, BASELINE), *progress)[1:] == [
        "[   10s] trial 0: 100/1,000  10/s  1m30s left",
        "[   20s] trial 0: 200/1,000  10/s  1m20s left",
        "[   30s] trial 0: 300/1,000  10/s  1m10s left",
    ]


def test_what_takes_long_is_told_without_an_event() -> None:
    """As loading TensorFlow does, or the time after the last of 16 steps; nothing is after the end."""
    written: list[str] = []
    now = [0.0]
    screen = PlainScreen(written.append, lambda: now[0], verbose=False)
    events = {1: Progress("loading TensorFlow", 0, 0), 35: Progress("layers", 8, 16), 37: Progress("layers", 16, 16)}
    for second in range(1, 60):
        now[0] = float(second)
        if second in events:
            screen(events[second])
        screen.beat()
    assert written == [
        "[   10s] loading TensorFlow: 9.0s so far",
        "[   20s] loading TensorFlow: 19s so far",
        "[   30s] loading TensorFlow: 29s so far",
        "[   40s] layers: 5.0s so far",
        "[   50s] layers: 15s so far",
    ]


def test_nothing_is_going_on_after_the_end(trial: Callable[..., Trial], result: Callable[..., SearchResult]) -> None:
    written: list[str] = []
    now = [0.0]
    screen = PlainScreen(written.append, lambda: now[0], verbose=False)
    screen(Finished(result(trial(0), best=trial(0), met=True)))
    now[0] = 60.0
    screen.beat()
    assert len(written) == 1


def test_another_objective_and_conversions_are_written(trial: Callable[..., Trial]) -> None:
    ended = trial(0, qdq_ops=1)
    opened = Opened(Path("run"), "net", 1, None, 800, 200, 50, 60.0, objective="latency")
    last = lines((0.0, opened), (1.0, BASELINE), (3.0, TrialEnded(ended, ended, 1, 1.0)))[-1]
    assert "INT8 2/3, share 62.5%, latency 37.5%, Q/DQ 1, samples 80, score 0.5000, drop 0.2500;" in last


def test_verbose_adds_begin_times_and_float_layers(trial: Callable[..., Trial]) -> None:
    ended = trial(0)
    begin, _, end = lines(
        (1.0, OPENED),
        (1.0, BASELINE),
        (2.0, TrialStarted(0, "TPE", 1, 0.5)),
        (3.0, TrialEnded(ended, ended, 1, 1.0)),
        verbose=True,
    )[-3:]
    assert begin == "[  2.0s] trial 0: TPE; 1/1 layers in INT8, 50.0%"
    assert end == "[  3.0s] trial 0: quantize 0.50 s, score 1.25 s; in float: conv2"


def test_the_split_of_the_data_is_written_when_it_is_known() -> None:
    split = DataSplit(400, 350, ""), DataSplit(1, 0, "there is 1 in all")
    shown = lines((0.0, OPENED), *((1.0, one) for one in split))[-2:]
    assert shown == [
        "[  1.0s] data: 400 samples for the search, 350 holdout",
        "[  1.0s] data: 1 sample for the search, no holdout: there is 1 in all",
    ]


def test_a_run_that_goes_on_says_after_how_many_trials(trial: Callable[..., Trial]) -> None:
    before = trial(0), trial(1)
    assert lines((0.0, Resumed(before, before[1], 30.0))) == ["[  0.0s] resumed: after 2 trials; best is trial 1"]


def test_trials_that_were_stopped_early_say_what_is_known(stopped: Callable[..., Trial]) -> None:
    missed = stopped(1, samples=1, drop=0.25, within=False)
    trials = [
        (stopped(0, samples=64), None),
        (missed, missed),
        (stopped(2, samples=1600, drop=0.0625, within=True), missed),
        (stopped(3, samples=530, drop=0.125), missed),
    ]
    shown = lines((0.0, BASELINE), *((1.0, TrialEnded(one, best, 1, 1.0)) for one, best in trials))[1:]
    assert shown == [
        "[  1.0s] trial 0: undecided; INT8 2/3, share 62.5%, samples 64; race",
        "[  1.0s] trial 1: missed; INT8 2/3, share 62.5%, samples 1, drop ~0.2500; race; best so far",
        "[  1.0s] trial 2: met; INT8 2/3, share 62.5%, samples 1,600, drop ~0.0625; race; best is trial 1",
        "[  1.0s] trial 3: screened out; INT8 2/3, share 62.5%, samples 530, drop ~0.1250; race; best is trial 1",
    ]
