"""The state of a running search, made of its events, and the rows that terminal and log show of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from autoquant.cli.output import Row
from autoquant.evaluation.scoring.rows import size_text
from autoquant.pulse import duration
from autoquant.reports.words import counted, macs, number, percent, share_words
from autoquant.tuning import events
from autoquant.tuning.events import OPENING
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Trial

MOST_WORKERS = 8
"""Workers that have a line of their own."""
RECENT = 6
"""Trials that are shown."""
QUIET = 2.0
"""Seconds that may pass without a word."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a phase is: `done` of `total` steps at time `at`; the first report said `begun`, at `begin`.

    `total` is 0 where nothing can be counted, but the time that it takes.
    """

    what: str
    done: int
    total: int
    at: float
    begun: int
    begin: float

    @property
    def rate(self) -> float | None:
        """Steps a second; None before there are two reports."""
        return (self.done - self.begun) / (self.at - self.begin) if self.at > self.begin else None

    def left(self, now: float) -> float | None:
        """Seconds left; None where the rate is not known, or it takes longer than the rate said."""
        if not self.rate:
            return None
        left = (self.total - self.done) / self.rate - (now - self.at)
        return left if left > 0.0 else None

    def counts(self, now: float) -> bool:
        """Whether steps tell how far it is: there are some, and it does not go on for long after the last one."""
        return self.total > 0 and (self.done < self.total or now - self.at < QUIET)

    def words(self, now: float) -> str:
        """Steps done, rate and time left, as far as they are known; else how long it has taken."""
        if not self.counts(now):
            return f"{duration(now - self.begin)} so far"
        left = self.left(now)
        words = [f"{self.done:,}/{self.total:,}"]
        if self.rate:
            words.append(rate_words(self.rate))
        if self.done >= self.total:
            return "  ".join(words)
        if left is not None:
            words.append(f"{duration(left)} left")
        elif now - self.begin >= QUIET:
            words.append(f"{duration(now - self.begin)} so far")
        return "  ".join(words)


@dataclass(frozen=True, slots=True)
class SearchState:
    """All that is known of a search, last heard of at `heard`. `used` seconds of the budget were used at time `at`.

    That is when the search began to open the model, or what it has told since.
    """

    opened: events.Opened | None = None
    baseline: events.BaselineScored | None = None
    divided: events.DataSplit | None = None
    batches: int = 0
    resumed: events.Resumed | None = None
    running: events.TrialStarted | None = None
    workers: tuple[events.WorkerHere, ...] = ()
    pace: Pace | None = None
    recent: tuple[Trial, ...] = ()
    best: Trial | None = None
    trials: int = 0
    used: float = 0.0
    at: float | None = None
    warnings: tuple[str, ...] = ()
    result: SearchResult | None = None
    heard: float = 0.0

    def used_at(self, now: float) -> float:
        """Seconds of the budget that are used now."""
        return self.used if self.result or self.at is None else self.used + now - self.at


def update(state: SearchState, event: events.Event, now: float) -> SearchState:
    """The state after an event at time `now`, in seconds of any clock."""
    return replace(_changed(state, event, now), heard=now)


def _changed(state: SearchState, event: events.Event, now: float) -> SearchState:
    match event:
        case events.Opened():
            return replace(state, opened=event, at=now if state.at is None else state.at)
        case events.BaselineScored():
            return replace(state, baseline=event, pace=None)
        case events.DataSplit():
            return replace(state, divided=event)
        case events.Calibrated():
            return replace(state, batches=event.batches, pace=None)
        case events.Resumed():
            state = replace(state, resumed=event, recent=event.trials[-RECENT:], best=event.best)
            return replace(state, trials=len(event.trials), used=state.used_at(now) + event.seconds, at=now)
        case events.Progress():
            begins = event.what == OPENING and state.at is None
            return replace(state, pace=_pace(state.pace, event, now), at=now if begins else state.at)
        case events.TrialStarted():
            return replace(state, running=event, pace=None)
        case events.TrialEnded():
            recent = (*state.recent, event.trial)[-RECENT:]
            state = replace(state, running=None, pace=None, recent=recent, best=event.best)
            return replace(state, trials=event.trials, used=event.seconds, at=now)
        case events.WorkersSeen():
            return replace(state, workers=event.workers)
        case events.WorkerEnded():
            recent = (*state.recent, event.trial)[-RECENT:]
            return replace(state, running=None, pace=None, recent=recent, trials=event.trials)
        case events.Warned():
            return replace(state, warnings=(*state.warnings, event.text))
        case events.Finished():
            result = event.result
            state = replace(state, running=None, pace=None, result=result, best=result.best)
            return replace(state, trials=len(result.trials), used=result.seconds)


def rate_words(rate: float) -> str:
    """Steps a second, or a minute where they are few.

    >>> rate_words(1234.5), rate_words(2.34), rate_words(0.25)
    ('1,234/s', '2.3/s', '15.0/min')
    """
    if rate < 1.0:
        return f"{rate * 60:.1f}/min"
    return f"{rate:,.0f}/s" if rate >= 9.95 else f"{rate:.1f}/s"


def _pace(before: Pace | None, event: events.Progress, now: float) -> Pace:
    if before is None or before.what != event.what or event.done < before.done or not before.total:
        return Pace(event.what, event.done, event.total, now, event.done, now)
    return replace(before, done=event.done, total=event.total, at=now)


def facts(state: SearchState) -> Iterator[Row]:
    """Model, data, folder and baseline: a log has a line of each when it is known, or changes."""
    opened, baseline, parts = state.opened, state.baseline, state.divided
    if opened is not None:
        yield "model", f"{opened.model}: {counted(opened.layers, 'layer')}, {macs(opened.macs)} multiply-adds"
        if parts is None:
            yield "data", counted(opened.samples, "sample")
        else:
            holdout = f"{parts.holdout:,} holdout" if parts.holdout else f"no holdout: {parts.reason}"
            yield "data", f"{counted(parts.search, 'sample')} for the search, {holdout}"
        batches = f", {counted(state.batches, 'batch')}" if state.batches else ""
        yield "calibration", f"{counted(opened.calibration_samples, 'sample')}{batches}"
        if opened.cached >= 1_000_000:  # less matters to nobody
            yield "cache", f"{size_text(opened.cached)} of samples, removed at the end"
        yield "run", str(opened.run)
    if baseline is not None:
        yield "FP32", f"{baseline.metric} {number(baseline.score)}; max drop {number(baseline.max_drop)}"
    resumed = state.resumed
    if resumed is not None:
        best_before = f"; best is trial {resumed.best.number}" if resumed.best else ""
        yield "resumed", f"after {counted(len(resumed.trials), 'trial')}{best_before}"


def running(state: SearchState) -> Iterator[Row]:
    """The trial that is being carried out, if there is one."""
    if state.running is not None and state.opened is not None:
        one = state.running
        shares = share_words(one.int8_layers, state.opened.layers, one.int8_share, int16_layers=one.int16_layers)
        yield f"trial {one.number}", f"{one.why}; {shares}"


def workers(state: SearchState) -> Iterator[Row]:
    """The workers that are there, and what each does; of many, the first."""
    for one in state.workers[:MOST_WORKERS]:
        yield f"worker {one.number}", f"{one.host}: {one.doing or 'joined'}; {counted(one.trials, 'trial')}"
    if len(state.workers) > MOST_WORKERS:
        yield "", f"and {counted(len(state.workers) - MOST_WORKERS, 'worker')} more"


def crew(state: SearchState) -> Iterator[Row]:
    """How many workers are there, and where: a log has a line when that changes."""
    if state.workers:
        hosts = Counter(one.host for one in state.workers)
        where = ", ".join(f"{count} on {host}" for host, count in sorted(hosts.items()))
        yield "workers", f"{len(state.workers)}: {where}"


def phase_begin(state: SearchState) -> tuple[str, float]:
    """What is going on, and since when, as far as that is known."""
    if state.pace is not None:
        return state.pace.what, state.pace.begin
    return f"trial {state.running.number}" if state.running else "working", state.heard


def phase(state: SearchState, now: float) -> Row:
    """What is going on, and how far it is."""
    what, begin = phase_begin(state)
    return what, state.pace.words(now) if state.pace else f"{duration(now - begin)} so far"


def best(state: SearchState) -> str:
    """The best trial so far."""
    trial = state.best
    if trial is None or trial.drop is None:
        return "none yet"
    score = f"drop about {number(trial.drop)}" if trial.score is None else f"{_score(trial)}, drop {number(trial.drop)}"
    shares = share_words(trial.int8_layers, trial.layers, trial.int8_share, int16_layers=trial.int16_layers)
    return f"{score}; {shares}; trial {trial.number}"


def budget(state: SearchState, now: float) -> Iterator[Row]:
    """Trials and time, used and allowed."""
    if state.opened is not None:
        most = f" of {duration(state.opened.timeout)}" if math.isfinite(state.opened.timeout) else ""
        yield "budget", f"{state.trials} of {state.opened.max_trials} trials, {duration(state.used_at(now))}{most}"


def ended(state: SearchState) -> Iterator[Row]:
    """Why the search ended, once it has, and where to see what it found."""
    if state.result is not None:
        yield "ended", state.result.ended
        report = RunFolder(state.result.run).report
        if report.is_file():
            yield "report", str(report)


def verdict(trial: Trial, state: SearchState) -> str:
    """The verdict of a trial: 'met' and 'missed' are about the tolerance, on all samples of the search."""
    if trial.state is State.FAILED or state.baseline is None:
        return "failed"
    if trial.undecided:
        return "screened out"
    met = trial.within if trial.state is State.STOPPED else trial.meets(state.baseline.max_drop)
    return {True: "met", False: "missed", None: "undecided"}[met]


def cells(trial: Trial, state: SearchState) -> Mapping[str, str]:
    """The figures of a trial by their headings, empty where there is none; '~' marks an estimate."""
    objective = state.opened.objective if state.opened else MACS
    estimate = "~" if trial.state is State.STOPPED else ""
    return {
        "INT8": f"{trial.int8_layers}/{trial.layers}",
        "INT16": str(trial.int16_layers) if trial.int16_layers else "",
        "share": percent(trial.int8_share),
        objective: "" if objective == MACS else percent(trial.objective),
        "Q/DQ": "" if trial.qdq_ops is None else str(trial.qdq_ops),
        "samples": f"{trial.samples:,}",
        "score": _score(trial),
        "drop": "" if trial.drop is None else f"{estimate}{number(trial.drop)}",
    }


def _score(trial: Trial) -> str:
    return "" if trial.score is None else number(trial.score)
