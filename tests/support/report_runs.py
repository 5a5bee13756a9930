"""Runs for reports: a search without a model (fake_search.py), and what a real one writes besides its trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from fake_search import TOTAL, FakeBuilder, fake_session, search_problem

from autoquant.cache import CacheEntry, write_cache
from autoquant.calibration.plan import Plan
from autoquant.evaluation.latency.latency import Latency, ModelTime, OperatorTime, Spread
from autoquant.evaluation.scoring.changes import ChangedSample, ClassChanges, Confusion, SampleChanges
from autoquant.files import write_text
from autoquant.formats.codec import save
from autoquant.formats.config_json import save_config
from autoquant.quiet import no_progress
from autoquant.targets.base import OnStep
from autoquant.tuning.builder import Built
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.overview import LayerFacts, Overview
from autoquant.tuning.phases import Phases
from autoquant.tuning.pictures import KEY, VERSION
from autoquant.tuning.result import Ended, SearchResult, result_text
from autoquant.tuning.study.run_folder import CERTIFICATE, CHANGES, RunFolder
from autoquant.tuning.study.trial import SCORE, Trial, add_to_score
from autoquant.tuning.study.workload import Macs
from autoquant.tuning.trials import run_trials

HOSTILE = "<script>alert(1)</script>\"'&amp;\x1b[31m\u202e}}{{ 7*7 }}</style>"
"""A name that would do harm wherever it were not escaped."""


class SavingBuilder(FakeBuilder):
    """Saves the plan too, as a real one does."""

    def build(self, plan: Plan, folder: Path, on_step: OnStep = no_progress) -> Built:
        """The file, and config.json."""
        save_config(plan, folder / "config.json")
        return super().build(plan, folder, on_step)


def report_run(
    folder: Path,
    *,
    layers: int = 12,
    trials: int = 12,
    name: str = "network",
    verdict: Verdict | None = Verdict.CERTIFIED,
    certify: Callable[[Certificate], Certificate] = lambda certificate: certificate,
    pictures: int = 6,
    sampler: str = "guided",
    hosts: Sequence[str] = (),
) -> RunFolder:
    """A run of a search for a chain of layers; without a `verdict` it has not come to its end.

    `name` is that of the model, of a layer that cannot be INT8, and in the reason of that. Workers on `hosts` carried
    the trials out, in turns, where there are any.
    """
    problem = search_problem(layers)
    run = RunFolder(folder)
    run.create()
    digests = dict.fromkeys(("model", "data", "calibration", "metric"), "0" * 64)
    request = {"model": f"/models/{name}.pb", "data": f"/data/{name}.npz", "tolerance": "1%", "samples": 24}
    run.write_request({"request": request, "digests": digests, "versions": {"autoquant": "0.2.0"}})
    session = fake_session(folder, problem, sampler, trials=trials)
    builder: Any = SavingBuilder(session.builder.workload)
    scorer: Any = session.scorer
    scorer.builder = builder
    session = replace(session, builder=builder)
    ended = run_trials(session)
    for trial, host in zip(session.study.trials(), cycle(hosts), strict=False):
        add_to_score(run.trial(trial.number) / SCORE, "host", host)
    best = session.study.best
    workload = session.objective.workload if isinstance(session.objective, Macs) else None
    assert best is not None
    assert workload is not None
    facts = [
        LayerFacts(one.name, one.op, workload.costs[one.name], one.weight_shape) for one in workload.layers.values()
    ]
    facts.append(LayerFacts(f"{name}/softmax", "BatchMatMulV2", 30_000, (), f"its weight '{name}' is not constant"))
    predicted = scorer.formula.predicted
    overview = Overview(
        model=name,
        terms=session.terms,
        unit="multiply-adds",
        layers=tuple(facts),
        engine="litert 2.3.0",
        search_samples=TOTAL,
        holdout_samples=450,
        calibration_samples=200,
        float_bytes=4_000_000,
        predicted=predicted,
    )
    save(overview, run.overview)
    save(
        Phases({"trials": 42.0, "baseline": 3.5, "calibration": 1.25, "certification": 2.0}, {"baseline": TOTAL}),
        run.phases,
    )
    if verdict is None:
        return run
    _finish(run, session.terms.max_drop, session.study.trials(), best, ended, verdict, certify, name, pictures)
    return run


def _finish(
    run: RunFolder,
    max_drop: float,
    trials: tuple[Trial, ...],
    best: Trial,
    ended: Ended,
    verdict: Verdict,
    certify: Callable[[Certificate], Certificate],
    name: str,
    pictures: int,
) -> None:
    """What is written at the end of a search."""
    folder = run.trial(best.number)
    save(_changes(), folder / CHANGES)
    random = np.random.default_rng(0)
    drawn = {str(one): random.integers(0, 256, (48, 64, 3)).astype(np.uint8) for one in range(pictures)}
    if drawn:
        write_cache(run.pictures, CacheEntry({}, drawn), key=KEY, version=VERSION)
    digest = "ab" * 32
    certificate = certify(
        Certificate(
            verdict=Verdict.CERTIFIED,
            metric="top1",
            baseline=0.9,
            score=0.8978,
            drop=0.0022,
            upper_bound=0.0081,
            max_drop=max_drop,
            confidence=0.95,
            samples=450,
            method="exact paired (trinomial)",
            origin=Origin("tensorflow 2.21.0", f"stock kernels of {name}", digest, digest, digest),
            suspicious=False,
            losses=2,
            gains=1,
        )
    )
    if verdict is not Verdict.MISSED:
        save(certificate, folder / CERTIFICATE)
    result = SearchResult(
        verdict=verdict,
        metric="top1",
        baseline=0.9,
        max_drop=max_drop,
        worst_score=0.9 - max_drop,
        best=best,
        trials=trials,
        layers=best.layers,
        seconds=48.75,
        model=folder / "model_int8.tflite",
        run=run.path,
        ended=ended,
        latency=_latency(name),
        certificate=certificate if verdict is not Verdict.MISSED else None,
        search_samples=TOTAL,
        warnings=(f"a warning about {name}",) if "<" in name else (),
    )
    write_text(run.result, result_text(result))


def _changes() -> SampleChanges:
    changed = [ChangedSample(one, 1.0, one % 3, one % 3, (one + 1) % 3, 0.01 * (one + 1)) for one in range(8)]
    better = (ChangedSample(40, -1.0, 2, 0, 2, 0.25),)
    classes = (ClassChanges(0, 300, 3, 0), ClassChanges(1, 350, 3, 0), ClassChanges(2, 350, 2, 1))
    confusions = (Confusion(0, 0, 1, 3), Confusion(1, 1, 2, 3), Confusion(2, 2, 0, 2), Confusion(2, 0, 2, 1))
    return SampleChanges(TOTAL, 8, 1, (*changed, *better), 11, classes, confusions)


def _latency(name: str) -> Latency:
    times = (
        ModelTime("FP32", Spread(0.0102, 0.0098, 0.0109), Spread(1.0, 1.0, 1.0)),
        ModelTime("INT8", Spread(0.0041, 0.0040, 0.0044), Spread(2.49, 2.3, 2.6)),
    )
    return Latency(1, 1, 120, times, (OperatorTime(f"{name}/conv", "CONV_2D", (0.004, 0.001)),))
