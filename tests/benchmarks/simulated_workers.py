"""What more workers are good for: searches by formula, whose best plan is known, with several trials at a time.

Each network has ten layers of which INT8 ruins three, settings of the whole model to race, and predictions that are not
quite right (guided_problems.py); of its 1,024 plans the best is known. The study is a real one, without a model. Trials
take a random time, 1 on average (worker_pool.py), so that time counts the trials one after the other.

A line for each number of workers, over networks: how often the best plan was found within so many trials in all; until
it was, or the end, medians and means of the trials begun and of the time; the mean time of one worker relative to that;
and the share of the workers' time in which they had nothing to try.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from guided_problems import Synthetic, random_problem
from worker_pool import Ended, SyntheticSpace, run_trials

from autoquant.tuning.sampling.problem import gain_of, int8_of
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.study.choices import AMCT, GUIDED
from autoquant.tuning.study.space import Choice
from autoquant.tuning.study.stores import journal_store
from autoquant.tuning.study.study import Study

GOOD = 0.99
"""A plan is found whose gain is this share of the best one's."""
HARM: Mapping[str, Mapping[Choice, float]] = {
    "batch_num": {8: 1.0, 1: 1.2},
    "equalize": {False: 1.0, True: 0.8},
    "bias_correction": {"none": 1.0, "analytic": 0.9},
}
HEADINGS = ("sampler", "workers", "found", "trials", "mean", "time", "mean", "times faster", "idle")


@dataclass(frozen=True)
class Run:
    """Of one search: whether the best plan was found; until then, or the end, the trials begun, the time, the idle."""

    found: bool
    trials: int
    time: float
    idle: float


@dataclass(frozen=True)
class Network:
    """A problem, and the gain of its best plan."""

    problem: Synthetic
    best: float

    def is_found(self, ended: Ended) -> bool:
        """Whether a trial is as good as the best plan."""
        gain = gain_of(int8_of(ended.trial.parameters, self.problem), self.problem)
        return bool(ended.trial.within) and gain >= GOOD * self.best


@cache
def network(seed: int) -> Network:
    """One of the networks."""
    problem = replace(random_problem(1000 + seed, bad=3, wrong=0.7, pairs=0.5), harm=HARM)
    return Network(problem, problem.optimum())


def simulate(sampler: str, workers: int, seed: int, *, most: int) -> Run:
    """One search of so many trials at most."""
    searched = network(seed)
    problem, space = searched.problem, SyntheticSpace(searched.problem)
    starts = [] if sampler in (GUIDED, AMCT) else list(space.starts())
    ranking = {layer: -own["r0"] for layer, own in problem.predicted.items()}
    chosen = open_sampler(sampler, problem, seed=seed, startup=len(starts), ranking=lambda: ranking)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(
            journal_store(Path(folder) / "study.journal"), space, chosen, max_drop=problem.max_drop, starts=starts
        )
        every = list(run_trials(study, problem, workers=workers, most=most, random=np.random.default_rng(seed)))
    good = [ended.ended for ended in every if searched.is_found(ended)]
    until = min(good, default=max(ended.ended for ended in every))
    begun = [ended for ended in every if ended.begun < until]
    busy = sum(min(ended.ended, until) - ended.begun for ended in begun)
    return Run(bool(good), len(begun), until, 1.0 - busy / (until * workers))


def rows(samplers: Sequence[str], workers: Sequence[int], *, seeds: int, most: int) -> Iterator[str]:
    """A table, a line at a time."""
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + "---|" * len(HEADINGS)
    for sampler in samplers:
        slowest = None
        for count in workers:
            runs = [simulate(sampler, count, seed, most=most) for seed in range(seeds)]
            trials, times = [run.trials for run in runs], [run.time for run in runs]
            slowest = slowest or fmean(times)
            numbers = (median(trials), fmean(trials), median(times), fmean(times), slowest / fmean(times))
            idle = abs(fmean(run.idle for run in runs))
            cells = (sampler, f"{count}", f"{sum(run.found for run in runs)}/{seeds}")
            yield "| " + " | ".join([*cells, *(f"{number:.1f}" for number in numbers), f"{idle:.0%}"]) + " |"
