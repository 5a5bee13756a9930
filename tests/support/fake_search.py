"""Searches without a model: a chain of layers, a builder that saves a few bytes, and scores by formula."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.evaluation.metrics.metric import OnProgress, Score
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.quiet import no_progress
from autoquant.targets.base import OnStep
from autoquant.tuning.builder import Builder, Built
from autoquant.tuning.events import Listener
from autoquant.tuning.sampling.problem import SearchProblem
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.sensitivity.request import Prediction, Predictions
from autoquant.tuning.session import Budget, Session, TimeLimit
from autoquant.tuning.study.run_folder import CONFIG, RECORD, RunFolder
from autoquant.tuning.study.space import Parameters, SearchSpace
from autoquant.tuning.study.stores import journal_store
from autoquant.tuning.study.study import Sampler, Study
from autoquant.tuning.study.trial import Terms
from autoquant.tuning.study.workload import MULTIPLY_ADDS, Macs, Workload

SPACE = """
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""
MAX_DROP, TOTAL = 0.01, 1000
MODEL = "model_int8.tflite"


def chain(layers: int) -> Workload:
    """A chain of convolutions, each with as many multiply-adds as chance gives it."""
    macs = np.random.default_rng(layers).integers(1_000, 100_000, layers).tolist()
    made = [
        Layer(f"l{i:04d}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 8, 8), (8,), None, None, own)
        for i, own in enumerate(macs)
    ]
    return Workload({one.name: one for one in made}, {one.name: one.macs or 0 for one in made}, MULTIPLY_ADDS)


@dataclass
class Formula:
    """Divergences of layers that add up; what is predicted of them is not quite right. A tenth of the layers is bad."""

    workload: Workload
    true: dict[str, float] = field(init=False)
    predicted: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        random, count = np.random.default_rng(7), len(self.workload.layers)
        own = 0.03 * random.dirichlet(np.ones(count))
        own[random.choice(count, max(count // 10, 2), replace=False)] = 0.05 * random.lognormal(
            0.0, 1.0, max(count // 10, 2)
        )
        self.true = dict(zip(self.workload.layers, own.tolist(), strict=True))
        wrong = (own * random.lognormal(0.0, 0.5, count)).tolist()
        self.predicted = dict(zip(self.workload.layers, wrong, strict=True))

    def divergence(self, plan: Plan) -> float:
        """Of a plan, in nats: layers with min-max ranges lose a half more."""
        worse = {name: 1.0 + 0.5 * ("MinMax" in type(own.activation).__name__) for name, own in plan.int8.items()}
        return sum(self.true[name] * factor for name, factor in worse.items())

    def predict(self, parameters: Parameters) -> Predictions:
        """For each layer, with either range."""
        return {
            name: tuple(
                Prediction({f"{name}:activation": label}, own * factor)
                for label, factor in (("ifmr", 1.0), ("minmax", 1.5))
            )
            for name, own in self.predicted.items()
        }


@dataclass
class FakeBuilder:
    """Saves four bytes and files without content, and remembers the plan for the scorer."""

    workload: Workload
    file_name: str = MODEL
    plan: Plan | None = None

    def files(self, path: Path) -> tuple[Path, ...]:
        """The model itself."""
        return (path,)

    def build(self, plan: Plan, folder: Path, on_step: OnStep = no_progress) -> Built:
        """All files that there must be."""
        self.plan = plan
        (folder / MODEL).write_bytes(b"INT8")
        for name in (CONFIG, RECORD):
            (folder / name).touch()
        on_step("save")
        return Built(folder / MODEL, 0, {})


@dataclass
class FakeScorer:
    """Scores the plan that was built last, on everything."""

    builder: FakeBuilder
    formula: Formula

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        """A divergence of 0.05 nats is just within tolerance, but for a little noise that repeats itself."""
        assert self.builder.plan is not None
        divergence = self.formula.divergence(self.builder.plan)
        noise = np.random.default_rng(zlib.crc32(repr(sorted(self.builder.plan.int8)).encode())).normal()
        drop = float(min(MAX_DROP * (divergence / 0.05 + 0.05 * noise), 0.9))
        on_step("score")
        score = Score(0.9 - drop, np.zeros(TOTAL))
        return SequentialScore(TOTAL, score, drop, drop, drop, drop <= MAX_DROP, (divergence,), 256)


def search_problem(layers: int, *, space: str = SPACE) -> SearchProblem:
    """The problem of a search for a chain of so many layers."""
    workload = chain(layers)
    resolved = SearchSpace(parse_space(space, "space"), list(workload.layers.values()), batches=8)
    objective = Macs(workload, resolved.fullest)
    return SearchProblem(resolved, objective, MAX_DROP, TOTAL, Formula(workload).predict)


def fake_session(
    folder: Path,
    problem: SearchProblem,
    sampler: str | Sampler,
    *,
    trials: int,
    listener: Listener = lambda event: None,
    wrap: Callable[[Sampler], Sampler] = lambda sampler: sampler,
) -> Session:
    """A session in a folder that exists, whose trials cost nothing but what is done about them."""
    objective = cast(Macs, problem.objective)
    builder = FakeBuilder(objective.workload)
    chosen = open_sampler(sampler, problem) if isinstance(sampler, str) else sampler
    run = RunFolder(folder)
    known: dict[str, Any] = {"builder": cast(Builder, builder), "space": problem.space}
    return Session(
        scorer=FakeScorer(builder, Formula(objective.workload)),
        study=Study(journal_store(run.journal), problem.space, wrap(chosen), max_drop=MAX_DROP, starts=[]),
        objective=objective,
        terms=Terms("top1", 0.9, MAX_DROP, "litert", "litert", objective.name),
        budget=Budget(max_trials=trials),
        folder=run,
        listener=listener,
        limit=TimeLimit(lambda: 0.0, begin=0.0),
        **known,
    )
