"""The guided sampler in an Optuna study: what waits in the study is what it proposes, with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from autoquant.tuning.sampling.history import THRESHOLD, History, Past, Step
from autoquant.tuning.sampling.infeasible import Outs
from autoquant.tuning.sampling.mirror import seeded, suggestions
from autoquant.tuning.sampling.problem import Problem
from autoquant.tuning.sampling.propose import propose
from autoquant.tuning.sampling.reading import PENDING, ended, parameters_of, read
from autoquant.tuning.study.space import Parameters

HALF = 3
"""So many of the dimensions that are off, and so many of the others, may a sampler choose around the incumbent."""
SUBSETS, ATTEMPTS = 20, 10
"""So many choices of dimensions, and so many points in each, are looked at for one that is worth trying."""


@dataclass(frozen=True)
class GuidedProposer:
    """Lets wait in the study what `propose` proposes; what it proposes depends on the study and the seed alone."""

    problem: Problem
    seed: int = 0
    threshold: float = THRESHOLD

    def prepare(self, study: optuna.Study) -> bool:
        """Let the next point wait, unless others are waiting; False at the end."""
        trials = study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        past = read(trials, self.problem.dimensions)
        step = propose(past, self.problem, threshold=self.threshold)
        point = None if step is None else around(step, past, self) if step.free else step.parameters
        if step is None or point is None:
            return False
        enqueue(study, Step(point, step.phase, step.why, step.limit))
        return True


def around(step: Step, past: Sequence[Past], proposer: GuidedProposer) -> Parameters | None:
    """What TPE makes of a few of the free dimensions, if that gains more than the incumbent; None if nothing does."""
    problem = proposer.problem
    outs = Outs(History(tuple(past), problem, proposer.threshold))
    for subset in range(SUBSETS):
        seed = seeded(proposer.seed, len(past), subset)
        few = _few(step, np.random.default_rng(seed))
        sampler = TPESampler(seed=seed, multivariate=True)
        chosen = suggestions(
            past, {name: problem.dimensions[name] for name in few}, sampler=sampler, allowed=problem.allowed
        )
        for some, _ in itertools.islice(chosen, ATTEMPTS):
            if outs.leave({**step.parameters, **some}):
                return {**step.parameters, **some}
    return None


def enqueue(study: optuna.Study, step: Step, **attributes: object) -> None:
    """Let a point wait in a study, with what is to be known of it."""
    study.enqueue_trial(
        dict(step.parameters), {"why": step.why, "phase": step.phase, "limit": step.limit, **attributes}
    )


def superfluous(study: optuna.Study, trial: optuna.Trial) -> str:
    """Why a trial that was just asked for must not be carried out; '' where it must.

    Between `prepare` and `study.ask` another process may take what was waiting, and Optuna then makes something up; two
    processes may also propose the same at the same time. Of equals the one with the lowest number is carried out.
    """
    trials = study.get_trials(deepcopy=False)
    if "fixed_params" not in trials[trial.number].system_attrs:
        return "proposed by nobody"
    for other in trials[: trial.number]:
        counts = other.state in PENDING or ended(other)
        alike = parameters_of(other) == trial.params and other.user_attrs.get("limit") == trial.user_attrs.get("limit")
        if counts and alike:
            return f"the same as trial {other.number}"
    return ""


def _few(step: Step, random: np.random.Generator) -> tuple[str, ...]:
    """Some of the free dimensions, by chance: of those that are off, layers in float above all, and of the others."""
    off = [name for name in step.free if step.parameters[name] is False]
    others = [name for name in step.free if name not in off]
    return tuple(sorted(str(name) for names in (off, others) for name in random.permutation(names)[:HALF]))
