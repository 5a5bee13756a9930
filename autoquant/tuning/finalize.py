"""What a search is left with when its trials have ended: the best of them, scored on everything, and what it costs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.errors import AutoquantError, TrialError
from autoquant.evaluation.latency.latency import Latency
from autoquant.evaluation.latency.run_latency import run_latency
from autoquant.evaluation.statistics.tolerance import drop, within, worst_allowed
from autoquant.tuning.blame import costly_layers
from autoquant.tuning.builder import score_whole
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Warned
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.request import NOTHING
from autoquant.tuning.study.run_folder import PASSING
from autoquant.tuning.study.trial import State, Trial, best
from autoquant.tuning.trials import Loop, Ran

CLOSEST = 3
"""So many of the trials that come closest to a tolerance that is missed are scored on everything, at most."""


def result_of(loop: Loop, ran: Ran) -> SearchResult:
    """The result, not certified yet. Raises RunError where the folder cannot be written."""
    ended, kept = ran.ended, best(loop.study.trials(), loop.allowed)
    try:
        if kept is not None and ended is not Ended.INTERRUPTED:
            kept = _scored_whole(loop, kept)
    except KeyboardInterrupt:
        ended, kept = Ended.INTERRUPTED, loop.keep_best()
    bench, more = loop.bench, ended is not Ended.INTERRUPTED
    met = kept is not None and kept.meets(loop.allowed)
    baseline, builder = bench.part.score.value, bench.builder
    model = loop.folder.best / builder.target.file_name(builder.model.name) if kept else None
    return SearchResult(
        verdict=Verdict.MET if met else Verdict.MISSED,
        metric=bench.metric.name,
        baseline=baseline,
        tolerance=loop.allowed,
        limit=worst_allowed(baseline, loop.allowed, higher_is_better=bench.metric.higher_is_better),
        best=kept,
        trials=loop.study.trials(),
        layers=builder.workload.size,
        seconds=ran.seconds,
        model=model,
        run=loop.folder.path,
        ended=ended,
        unit=builder.workload.unit,
        objective=loop.objective.name,
        space=str(loop.request.space),
        search_samples=len(bench.part),
        declined=loop.request.certify == NOTHING,
        costly=costly(loop, kept.plan) if kept and not met and more else (),
        latency=_latency(loop, model) if model and more else None,
    )


def costly(loop: Loop, plan: Plan) -> tuple[tuple[str, float], ...]:
    """The layers that cost the most. The result is known already: nothing that happens here may lose it."""
    try:
        with tempfile.TemporaryDirectory(dir=loop.folder.path, prefix=PASSING) as folder:
            return costly_layers(loop.bench, plan, Path(folder), partial(loop.progress, "costly layers"))
    except KeyboardInterrupt:
        return ()
    except (AutoquantError, OSError, MemoryError) as error:
        loop.listener(Warned(f"the layers that cost the most could not be found: {error}"))
        return ()


def _scored_whole(loop: Loop, kept: Trial) -> Trial:
    """The best trial, scored on everything: where it was stopped early it may be another that is, then."""
    lost: set[int] = set()
    for _ in range(CLOSEST):
        if kept.state is not State.STOPPED:
            return kept
        whole = _whole(loop, kept)
        if whole is None:
            lost.add(kept.number)
        else:
            loop.study.correct(whole)
        kept = loop.keep_best([trial for trial in loop.study.trials() if trial.number not in lost]) or kept
    done = [trial for trial in loop.study.trials() if trial.state is State.DONE]
    return loop.keep_best(done) or kept


def _whole(loop: Loop, trial: Trial) -> Trial | None:
    """A trial that was stopped early, with its score on everything; None where the model cannot be scored so."""
    bench = loop.bench
    name = bench.builder.target.file_name(bench.builder.model.name)
    try:
        runner = bench.engine.open_file(loop.folder.best / name, bench.builder.model.program)
        on_progress = partial(loop.progress, f"trial {trial.number}, all samples")
        score = score_whole(runner, bench.part, batch_size=bench.batch_size, on_progress=on_progress)
    except TrialError as error:
        loop.listener(Warned(f"the best model cannot be scored on all samples: {error}"))
        return None
    loss = drop(bench.part.score.value, score.value, higher_is_better=bench.metric.higher_is_better)
    whole = replace(
        trial,
        state=State.DONE,
        score=score.value,
        drop=loss,
        low=loss,
        high=loss,
        within=within(loss, loop.allowed),
        samples=trial.samples + score.samples,
    )
    loop.write_score(whole)
    return whole


def _latency(loop: Loop, model: Path) -> Latency | None:
    """The latency of the float model and the best; as little as above may it lose the result."""
    try:
        return run_latency(loop.bench.builder.model, loop.bench.part.data, model)
    except KeyboardInterrupt:
        return None
    except (AutoquantError, OSError, MemoryError) as error:
        loop.listener(Warned(f"latency could not be measured: {error}"))
        return None
