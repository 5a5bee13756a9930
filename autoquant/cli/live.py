"""The live view: a state made visible, and redrawn while the search runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoquant.cli.state import Pace, State, update
from autoquant.cli.words import SET_ASIDE, counted, duration, macs, number, percent
from autoquant.tuning.events import Event, Opened
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.trial import State as TrialState
from autoquant.tuning.study.trial import Trial

BAR = 28
"""Columns of the progress bar where there is room for it."""


class LiveScreen:
    """A listener that shows what it hears, in place."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._state = State()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the last state, which stays on the screen, unless there never was one."""
        self._live.transient = self._state.opened is None
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Hear an event; it is seen at the next refresh."""
        self._state = update(self._state, event, self._clock())

    def _render(self) -> RenderableType:
        return render(self._state, self._clock())


def render(state: State, now: float) -> RenderableType:
    """What the screen shows at time `now`, at whatever width."""
    facts = Table.grid(padding=(0, 2), expand=True)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold", ratio=1)
    for label, value in _facts(state, now):
        facts.add_row(label, value)
    parts: list[RenderableType] = [facts]
    if state.recent:
        parts += ["", _trials(state)]
    if state.warnings:
        parts += ["", *(Text(f"warning: {text}", style="yellow") for text in state.warnings)]
    return Group(*parts, "")


def _facts(state: State, now: float) -> Iterator[tuple[str, RenderableType]]:
    opened, baseline = state.opened, state.baseline
    if opened is None:
        yield "autoquant", "reading model and data ..."
        return
    yield "model", f"{opened.model}: {counted(opened.layers, 'layer')}, {macs(opened.macs)} multiply-adds"
    parts, calibration = state.divided, f"{opened.calibration_samples:,} for calibration"
    if parts is not None and parts.certification:
        yield (
            "data",
            f"{counted(parts.search, 'sample')} to search on, {parts.certification:,} to certify, {calibration}",
        )
    else:
        yield "data", f"{counted(opened.samples, 'sample')} for evaluation, {calibration}"
    yield "run", str(opened.run)
    if baseline is not None:
        allowed = f"INT8 may have {number(baseline.limit)} (drop {number(baseline.allowed)})"
        yield "FP32", f"{baseline.metric} {number(baseline.score)}; {allowed}"
        yield "best", _best(state.best, baseline.allowed)
    if state.running is not None:
        running = state.running
        share = percent(running.int8_share)
        yield f"trial {running.number}", f"{running.why}; {running.int8_layers}/{opened.layers} layers in INT8, {share}"
    if state.pace is not None:
        yield "" if state.running else state.pace.what, _bar(state.pace, now)
    if state.result is not None:
        yield "ended", state.result.ended
    yield "budget", _budget(state, opened, now)


def _best(best: Trial | None, allowed: float) -> RenderableType:
    if best is None or best.drop is None:
        return Text("none yet", style="dim")
    met = best.meets(allowed)
    drop = f"drop {number(best.drop)}"
    told = f"drop about {number(best.drop)}" if best.score is None else f"{number(best.score)}, {drop}"
    text = Text(told, style="green" if met else "red")
    layers = f"{best.int8_layers}/{best.layers} layers in INT8, {percent(best.int8_share)}"
    return text.append(f"; {layers}; trial {best.number}", style="not bold default")


def _bar(pace: Pace, now: float) -> RenderableType:
    rate, left = pace.rate, pace.left(now)
    words = f"{pace.done:,}/{pace.total:,}"
    words += f"  {rate:,.0f}/s" if rate else ""
    words += f"  {duration(left)} left" if left is not None else ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(max_width=BAR)
    grid.add_column(no_wrap=True)
    grid.add_row(ProgressBar(total=pace.total, completed=pace.done, width=None), words)
    return grid


def _budget(state: State, opened: Opened, now: float) -> str:
    limit = f" of {duration(opened.timeout)}" if math.isfinite(opened.timeout) else ""
    return f"{state.trials} of {opened.max_trials} trials, {duration(state.used_at(now))}{limit}"


def _trials(state: State) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim", expand=True)
    table.add_column("trial", justify="right", no_wrap=True, min_width=len("trial"))
    table.add_column("what is tried", overflow="ellipsis", no_wrap=True, ratio=1)
    objective = state.opened.objective if state.opened else MACS
    minimized = [objective] if objective != MACS else []
    between = ["Q/DQ"] if any(trial.qdq_ops is not None for trial in state.recent) else []
    for heading in ("INT8", "share", *minimized, *between, "score", "drop"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    allowed = state.baseline.allowed if state.baseline else math.nan
    for trial in state.recent:
        table.add_row(*_trial(trial, allowed, minimized=bool(minimized), between=bool(between)))
    return table


def _trial(trial: Trial, allowed: float, *, minimized: bool, between: bool) -> Iterator[RenderableType]:
    yield str(trial.number)
    yield Text(trial.why).append(f"\n{trial.failure}" if trial.failure else "", style="red")
    yield f"{trial.int8_layers}/{trial.layers}"
    yield percent(trial.int8_share)
    if minimized:
        yield percent(trial.objective)
    if between:
        yield "" if trial.qdq_ops is None else str(trial.qdq_ops)
    if trial.state is TrialState.FAILED:
        yield from (Text("failed", style="red"), "", "")
    elif trial.state is TrialState.STOPPED:
        yield Text(f"{trial.samples:,} seen", style="dim")
        yield "" if trial.drop is None else f"~{number(trial.drop)}"
        yield Text(SET_ASIDE, style="dim") if trial.undecided else verdict_of(trial.within)
    else:
        yield number(trial.score or 0.0)
        yield number(trial.drop or 0.0)
        yield verdict_of(trial.meets(allowed))


def verdict_of(met: bool | None) -> Text:
    """Whether a trial is within tolerance, if that is known."""
    if met is None:
        return Text("open", style="dim")
    return Text("yes" if met else "no", style="green" if met else "red")
