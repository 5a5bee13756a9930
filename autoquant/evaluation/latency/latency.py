"""Latencies of models measured side by side in turns, and what can be concluded from them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.formats.codec import encode

LEAST = 3
"""Rounds that there are at least: fewer have no quartiles."""
OTHERS = 0.3
"""Cores busy with something else that make a measurement doubtful; it takes OTHERS_LEAST seconds to see them."""
OTHERS_LEAST = 0.1
VARIED = 0.2
"""Distance of the quartiles, as a share of the median, that makes a measurement doubtful."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of some numbers, with their quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float

    @classmethod
    def of(cls, values: Array) -> Spread:
        """Of numbers of shape (n,), interpolated linearly as NumPy does."""
        lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(median, lower, upper)


@dataclass(frozen=True, slots=True)
class ModelTime:
    """One model: seconds for a batch, and its speed relative to the reference, above 1 where it is faster.

    The speed is the ratio of times of the same round, so that what disturbs both does not count. `operators_cover` is
    the share of the model's least time that its operators' least times add up to.
    """

    name: str
    seconds: Spread
    speed: Spread
    operators_cover: float = 1.0


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """An operator's least seconds in each model, None where it does not have it; `name` is its layer's, or tensor's.

    `operator` is its kind, as LiteRT calls it: CONV_2D.
    """

    name: str
    operator: str
    seconds: tuple[float | None, ...]

    @property
    def slowest(self) -> float:
        """Its seconds in the model where it takes longest."""
        return max(second for second in self.seconds if second is not None)

    def speed(self, model: int) -> float | None:
        """Its speed in a model relative to the first, above 1 where it is faster; None where one does not have it."""
        first, other = self.seconds[0], self.seconds[model]
        return first / other if first is not None and other else None


@dataclass(frozen=True)
class Latency:
    """Models measured in turns, the first of them the reference.

    `operators` are those of all models, the slowest first. `noise` says what disturbed the measurement, empty where
    nothing did.
    """

    threads: int
    batch_size: int
    rounds: int
    models: tuple[ModelTime, ...]
    operators: tuple[OperatorTime, ...] = ()
    noise: str = ""

    def __repr__(self) -> str:
        times = [f"{model.name} {model.seconds.median * 1000:.3g} ms" for model in self.models]
        return f"<Latency, batch {self.batch_size}, threads {self.threads}: {', '.join(times)}>"

    @property
    def statements(self) -> tuple[str, ...]:
        """A sentence for each model but the reference."""
        return tuple(_statement(model, self.models[0].name) for model in self.models[1:])

    def facts(self) -> dict[str, Any]:
        """As JSON has it: result.json, and what `benchmark --json` prints. Times are seconds of one batch."""
        return {**encode(self), "statements": list(self.statements)}


def _statement(model: ModelTime, reference: str) -> str:
    """Faster or slower only where it was so in three rounds out of four."""
    speed = model.speed
    words = f"{speed.median:.2f} times the speed ({speed.lower_quartile:.2f} to {speed.upper_quartile:.2f})"
    if speed.lower_quartile > 1.0:
        return f"{model.name} is faster than {reference} here: {words}"
    told = "it is slower" if speed.upper_quartile < 1.0 else "there is no clear difference"
    return f"{model.name} is not faster than {reference} here, {told}: {words}"


@dataclass(frozen=True, slots=True)
class RoundsBudget:
    """A measurement ends after `rounds`, or `seconds` if that is earlier."""

    seconds: float = 1.5
    rounds: int = 300

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.rounds < LEAST:
            raise ValueError(f"a budget has more than 0 seconds and at least {LEAST} rounds, got {self}")


def interleaved(calls: Sequence[Callable[[], None]], clock: Callable[[], float], budget: RoundsBudget) -> Array:
    """Seconds of each call in each round, shape (rounds, calls): one after the other, then all of them again.

    Every call is warmed up; before each that is timed comes one that is not, as the call before it was another's and
    left the processor's caches to that.
    """
    for call in calls:
        call()
    rounds: list[list[float]] = []
    begin = clock()
    while len(rounds) < LEAST or (len(rounds) < budget.rounds and clock() - begin < budget.seconds):
        rounds.append([_timed(call, clock) for call in calls])
    return np.array(rounds, np.float64)


def _timed(call: Callable[[], None], clock: Callable[[], float]) -> float:
    call()
    start = clock()
    call()
    return clock() - start


def seconds_of_others() -> float | None:
    """Processor time, in seconds, that other processes of this machine have used so far; None where nobody tells.

    Linux does, in /proc/stat (proc_stat(5)). The load average would not do: it goes back a minute, to what this process
    did before.
    """
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def noise(times: Array, seconds: float, others: float | None) -> str:
    """What makes times of shape (rounds, calls) doubtful, empty where nothing does.

    `others` is the processor time that other processes used in the `seconds` that it took.
    """
    said = []
    if others is not None and others > OTHERS * seconds + OTHERS_LEAST:
        said.append(f"other processes kept {others / seconds:.1f} of {os.cpu_count()} cores busy")
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75], axis=0)
    varied = float(np.max((high - low) / median))
    if varied > VARIED:
        said.append(f"times varied by {varied:.0%}")
    return " and ".join(said)
