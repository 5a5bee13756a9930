"""What is done about a trial beside building and scoring it, and what the guided sampler takes for more layers.

Builder and scorer are fakes that take no time (tests/support/fake_search.py), so all CPU time between two trials is
bookkeeping: the proposal, the study, the folder. The fitting of TPE's model, which is Optuna's, is not counted.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from fake_search import fake_session, search_problem

from autoquant.tuning.events import Event, TrialEnded
from autoquant.tuning.sampling.problem import SearchProblem
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.sampling.study_copy import Tpe
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import Trial
from autoquant.tuning.trials import run_trials

LAYERS = MappingProxyType({"random": 14, "tpe": 14, "guided": 40})
"""Of the chain that a sampler is measured with: of 14 layers, 1,000 random trials leave nothing for the guided one."""
AT, WINDOW, ROUNDS = (10, 100, 1000), 9, 3
"""Trials at which bookkeeping is measured, as the median over so many; the least of so many times in turns, for what
else a machine does can take as much again."""
CHAINS, TRIALS = (10, 50, 200, 1000), 40
"""Layers of the searches, and how many trials each has."""


def rows() -> Iterator[str]:
    """Bookkeeping, writes, and sampling."""
    yield f"CPU ms of bookkeeping per trial: layers; at trial {', '.join(map(str, AT))}; ratio"
    for name, layers in LAYERS.items():
        rounds = [[bookkeeping(name, search_problem(layers), at) * 1000 for at in AT] for _ in range(ROUNDS)]
        found = np.min(rounds, axis=0).tolist()
        yield f"  {name:8}{layers:8}{''.join(f'{each:8.1f}' for each in found)}{found[-1] / found[0]:8.2f}"
    yield "writes per trial: layers; lines of the journal, fsyncs of it"
    for layers in CHAINS[:3]:
        found_writes = writes(layers)
        yield f"  {layers:8}{found_writes.lines:8.1f}{found_writes.fsyncs:8.1f}"
    yield f"guided search of {TRIALS} trials: layers, CPU s of sampling, of all bookkeeping, peak MB"
    spent = []
    for layers in CHAINS:
        spent.append(searched(layers))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        yield f"  {layers:8}{spent[-1].sampling:8.2f}{spent[-1].total:8.2f}{peak:8.0f}"
    yield f"  exponent of sampling{exponent(CHAINS, [one.sampling for one in spent]):8.2f}"


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Of the largest two sizes: cost grows as size to this power."""
    return math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])


@dataclass
class Spent:
    """CPU seconds of sampling, and of all that was done."""

    sampling: float = 0.0
    total: float = 0.0


def bookkeeping(name: str, problem: SearchProblem, at: int) -> float:
    """CPU seconds of a trial so far into a search; before it come random trials, for they never end."""
    stamps, fitting = list[float](), Spent()

    def listen(event: Event) -> None:
        if isinstance(event, TrialEnded):
            stamps.append(time.process_time() - fitting.sampling)

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        before = max(at - WINDOW // 2 - 1, 1)
        run_trials(fake_session(Path(folder), problem, "random", trials=before))
        stack.enter_context(patch.object(Tpe, "sample_relative", timed(Tpe.sample_relative, fitting)))
        run_trials(fake_session(Path(folder), problem, name, trials=before + WINDOW + 1, listener=listen))
    return median(later - earlier for earlier, later in pairwise(stamps))


def timed(call: Callable[..., Any], spent: Spent) -> Callable[..., Any]:
    """The same, of which the CPU seconds are added up."""

    def run(*arguments: Any) -> Any:
        begin = time.process_time()
        try:
            return call(*arguments)
        finally:
            spent.sampling += time.process_time() - begin

    return run


@dataclass
class Writes:
    """Per trial."""

    lines: float
    fsyncs: float


def writes(layers: int, trials: int = 20) -> Writes:
    """Lines of the journal, and how often it is made sure that they are on the disk."""
    counts, fsync = Counter[str](), os.fsync

    def counted(file: int) -> None:
        counts[Path(f"/proc/self/fd/{file}").resolve().name] += 1
        fsync(file)

    with tempfile.TemporaryDirectory() as folder, patch("os.fsync", counted):
        session = fake_session(Path(folder), search_problem(layers), "random", trials=trials)
        before = counts["study.journal"]
        run_trials(session)
        lines = session.folder.journal.read_text(encoding="utf-8").count("\n") - before
    return Writes(lines / trials, (counts["study.journal"] - before) / trials)


@dataclass
class Timed:
    """A sampler, and the CPU seconds that it takes."""

    sampler: Sampler
    spent: Spent = field(default_factory=Spent)

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The same point."""
        found = timed(self.sampler, self.spent)(trials)
        assert found is None or isinstance(found, Suggestion)
        return found


def searched(layers: int, trials: int = TRIALS) -> Spent:
    """What a guided search takes."""
    begin, problem = time.process_time(), search_problem(layers)
    sampler = Timed(open_sampler("guided", problem))
    with tempfile.TemporaryDirectory() as folder:
        run_trials(fake_session(Path(folder), problem, sampler, trials=trials))
    return Spent(sampler.spent.sampling, time.process_time() - begin)
