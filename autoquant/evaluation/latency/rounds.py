"""Time calls in turns, and measure what other processes did meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoquant.evaluation.data.batch import Array

LEAST = 3
"""Rounds that there are at least: fewer have no quartiles."""
OTHERS = 0.3
"""Cores busy with something else that make a measurement doubtful; it takes OTHERS_LEAST seconds to see them."""
OTHERS_LEAST = 0.1
VARIED = 0.2
"""Distance of the quartiles, as a share of the median, that makes a measurement doubtful."""


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
