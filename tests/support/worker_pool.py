"""Searches whose trials run several at a time, without a model: trials by formula, of random duration, and a clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from guided_problems import Synthetic

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import Hfmg, Ifmr, MinMax, RangeAlgorithm
from autoquant.tuning.sampling.problem import globals_of, start_of
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, switch_of
from autoquant.tuning.study.study import Study
from autoquant.tuning.study.trial import Trial

RANGES: Mapping[str, RangeAlgorithm] = {"r0": Ifmr(), "r1": MinMax(), "r2": Hfmg()}
SCATTER = 0.5
"""Of the logarithm of a trial's duration, whose mean is 1."""


@dataclass(frozen=True)
class SyntheticSpace:
    """The space of a synthetic problem, as a study asks for it. Points can mean the same plan: with `alike` ranges."""

    problem: Synthetic
    alike: bool = False

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        """Those of the problem."""
        return self.problem.dimensions

    def starts(self) -> Iterator[Suggestion]:
        """All layers in INT8, then with each other setting of the whole model."""
        first = start_of(self.problem)
        yield Suggestion(first, "all INT8")
        for name in globals_of(first):
            for value in self.dimensions[name][1:]:
                yield Suggestion({**first, name: value}, f"all INT8: {name} {value}")

    def plan(self, parameters: Parameters) -> Plan:
        """Layers with their ranges, or in float."""
        whole: Mapping[str, Any] = globals_of(parameters)
        return Plan({layer: self._layer(layer, parameters) for layer in self.problem.layers}, **whole)

    def may_be_float(self, name: str) -> bool:
        """Any."""
        return True

    def _layer(self, layer: str, parameters: Parameters) -> LayerPlan | None:
        chosen = "r0" if self.alike else str(parameters.get(f"{layer}:act_algo", "r0"))
        return LayerPlan(RANGES[chosen]) if parameters[switch_of(layer)] else None


@dataclass(frozen=True)
class Ended:
    """A trial, and when it began and ended: on average one takes 1."""

    trial: Trial
    begun: float
    ended: float


def run_trials(
    study: Study, problem: Synthetic, *, workers: int, most: int, random: np.random.Generator
) -> Iterator[Ended]:
    """Trials as they end, of which up to so many run at a time, until `most` were begun or nothing is left to try."""
    running: list[tuple[float, int, float, Trial]] = []
    now, begun = 0.0, len(study)
    while True:
        while len(running) < workers and begun < most and (trial := study.propose()) is not None:
            end = now + random.lognormal(-(SCATTER**2) / 2, SCATTER)
            heapq.heappush(running, (end, trial.number, now, trial))
            begun += 1
        if not running:
            return
        end, _, start, trial = heapq.heappop(running)
        now, ended = end, evaluated(problem, trial)
        study.finish(ended)
        yield Ended(ended, start, now)


def evaluated(problem: Synthetic, trial: Trial) -> Trial:
    """How a running trial ends."""
    words = {name: getattr(trial, name) for name in ("why", "phase", "max_samples", "note")}
    return replace(problem.evaluate(Suggestion(trial.parameters, **words), trial.number), plan=trial.plan)
