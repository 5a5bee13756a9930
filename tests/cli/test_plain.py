from pathlib import Path

from autoquant.cli.plain import PlainScreen
from autoquant.tuning.events import (
    BaselineScored,
    Calibrated,
    Divided,
    Event,
    Finished,
    Opened,
    Progress,
    TrialEnded,
    TrialStarted,
    Warned,
)


def lines(*heard: tuple[float, Event], verbose: bool = False) -> list[str]:
    """What is written when events are heard at these times; the screen begins at 0."""
    written: list[str] = []
    now = [0.0]
    screen = PlainScreen(written.append, lambda: now[0], verbose=verbose)
    for time, event in heard:
        now[0] = time
        screen(event)
    return written


BASELINE = BaselineScored("top1", 0.75, 0.125, 0.625)


def test_every_event_has_its_line(trial, result) -> None:
    best = trial(1, drop=0.0625)
    assert lines(
        (1.0, Opened(Path("run"), "net", 1, None, 800, 200, 50, 60.0)),
        (2.0, BASELINE),
        (3.0, Calibrated(1)),
        (4.0, TrialStarted(0, "TPE", 2, 0.625)),
        (70.0, TrialEnded(trial(0, drop=None, failure="conv1: NaN"), None, 1, 1.0)),
        (80.0, TrialEnded(best, best, 2, 2.0)),
        (3700.0, TrialEnded(trial(2, drop=0.25), best, 3, 3.0)),
        (3701.0, Warned("look at this")),
        (3702.0, Finished(result(best, best=best, met=True))),
    ) == [
        "[  1.0s] model net: 1 layer, unknown multiply-adds; run run",
        "[  1.0s] data: 800 samples for evaluation, 200 for calibration",
        "[  2.0s] FP32 top1 0.7500; INT8 may have 0.6250 (drop 0.1250)",
        "[  3.0s] calibrated with 1 batch",
        "[ 1m10s] trial 0: failed, conv1: NaN; 2/3 layers in INT8, 62.5%; TPE",
        "[ 1m20s] trial 1: top1 0.6875, drop 0.0625, within tolerance; 2/3 layers in INT8, 62.5%; TPE; best so far",
        "[ 1h01m] trial 2: top1 0.5000, drop 0.2500, not within tolerance; 2/3 layers in INT8, 62.5%; TPE; "
        "best is trial 1",
        "[ 1h01m] warning: look at this",
        "[ 1h01m] ended: the trials are used",
    ]


def test_progress_is_told_every_ten_seconds_at_most() -> None:
    heard = [(float(second), Progress("trial 0", second * 10, 1000)) for second in range(1, 36)]
    assert lines((0.0, BASELINE), *heard)[1:] == [
        "[   10s] trial 0: 100/1,000, 1m30s left",
        "[   20s] trial 0: 200/1,000, 1m20s left",
        "[   30s] trial 0: 300/1,000, 1m10s left",
    ]


def test_another_objective_and_conversions_are_told(trial) -> None:
    ended = trial(0, qdq_ops=1)
    opened = Opened(Path("run"), "net", 1, None, 800, 200, 50, 60.0, objective="latency")
    assert lines((0.0, opened), (1.0, BASELINE), (3.0, TrialEnded(ended, ended, 1, 1.0)))[-1] == (
        "[  3.0s] trial 0: top1 0.5000, drop 0.2500, not within tolerance; 2/3 layers in INT8, 62.5%, latency 37.5%, "
        "1 conversion between INT8 and float; TPE; best so far"
    )


def test_verbose_tells_times_and_what_stays_in_float(trial) -> None:
    ended = trial(0)
    assert lines(
        (1.0, BASELINE), (2.0, TrialStarted(0, "TPE", 2, 0.5)), (3.0, TrialEnded(ended, ended, 1, 1.0)), verbose=True
    )[1:] == [
        "[  2.0s] trial 0 begins: TPE, 2 layers in INT8",
        "[  3.0s] trial 0: top1 0.5000, drop 0.2500, not within tolerance; 2/3 layers in INT8, 62.5%; TPE; best so far",
        "[  3.0s] trial 0: quantize 0.50 s, score 1.25 s; in float: conv2",
    ]


def test_what_is_kept_aside_is_told() -> None:
    assert lines((0.0, Divided(1200, 1100, "")), (1.0, Divided(1, 0, "there is 1 in all"))) == [
        "[  0.0s] 1,200 samples to search on, 1,100 kept aside to certify the best",
        "[  1.0s] 1 sample to search on, none kept aside to certify the best: there is 1 in all",
    ]


def test_trials_that_were_stopped_early_say_what_is_known(stopped) -> None:
    raced = stopped(0, samples=64)
    out, within = stopped(1, samples=1, drop=0.25, within=False), stopped(2, samples=1600, drop=0.0625, within=True)
    assert lines(
        (0.0, BASELINE),
        (1.0, TrialEnded(raced, None, 1, 1.0)),
        (2.0, TrialEnded(out, out, 2, 2.0)),
        (3.0, TrialEnded(within, out, 3, 3.0)),
        (4.0, TrialEnded(stopped(3, samples=530, drop=0.125), out, 4, 4.0)),
    )[1:] == [
        "[  1.0s] trial 0: stopped after 64 samples, compared by its outputs; 2/3 layers in INT8, 62.5%; race",
        "[  2.0s] trial 1: stopped after 1 sample, drop about 0.2500, not within tolerance; "
        "2/3 layers in INT8, 62.5%; race; best so far",
        "[  3.0s] trial 2: stopped after 1,600 samples, drop about 0.0625, within tolerance; "
        "2/3 layers in INT8, 62.5%; race; best is trial 1",
        "[  4.0s] trial 3: stopped after 530 samples, drop about 0.1250, set aside; "
        "2/3 layers in INT8, 62.5%; race; best is trial 1",
    ]
