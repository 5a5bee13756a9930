"""The result of a search: its best trial scored on everything and verified, what it costs, and how fast it is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from autoquant.errors import AutoquantError, DataError, OutOfTime, RunError, TrialError, UserFunctionError
from autoquant.evaluation.latency.operators import run_latency
from autoquant.evaluation.scoring.changes import lost_samples
from autoquant.evaluation.statistics.tolerance import drop_from, within, worst_score
from autoquant.files import changed_files, writing
from autoquant.formats.codec import encode
from autoquant.model.model import is_lite
from autoquant.tuning.builder import front_path
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.costly_layers import costly_layers
from autoquant.tuning.events import Warned
from autoquant.tuning.pictures import load_changes
from autoquant.tuning.restore import keep_best, restore_best, score_on_all
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.session import SearchSession
from autoquant.tuning.study.pareto import kept_trials, pareto_front
from autoquant.tuning.study.places import NOTHING
from autoquant.tuning.study.run_folder import CHANGES
from autoquant.tuning.study.trial import State, Trial, add_to_score, best

NOT_RESCORED = "the best model was not scored in TensorFlow"
CLOSEST = 3
"""So many of the trials that come closest to a tolerance that is missed are scored on everything, at most."""


def finalize(session: SearchSession, ended: Ended) -> SearchResult:
    """Make the result of the trials, not certified yet. Raises RunError where the folder cannot be written."""
    kept = best(session.study.trials(), session.max_drop)
    try:
        if ended is not Ended.INTERRUPTED:
            kept = restore_best(session)
        if kept is not None and ended is not Ended.INTERRUPTED:
            kept = _score_others(session, _scored_on_all(session, kept))
    except KeyboardInterrupt:
        ended, kept = Ended.INTERRUPTED, keep_best(session)
    met = kept is not None and kept.meets(session.max_drop)
    terms, workload = session.terms, session.builder.workload
    model = session.best_model if kept else None
    trials = session.study.trials()
    return SearchResult(
        verdict=Verdict.MET if met else Verdict.MISSED,
        metric=terms.metric,
        baseline=terms.baseline,
        max_drop=terms.max_drop,
        worst_score=worst_score(terms.baseline, terms.max_drop, higher_is_better=session.metric.higher_is_better),
        best=kept,
        trials=trials,
        layers=workload.size,
        seconds=session.limit.used(),
        model=model,
        run=session.folder.path,
        ended=ended,
        front=front_path(model) if model and session.builder.model.front else None,
        unit=workload.unit,
        objective=terms.objective_name,
        space=str(session.request.space),
        search_samples=len(session.scorer.subset),
        declined=session.request.certify == NOTHING,
        pareto=pareto_front(trials),
        keep_models=math.inf if session.keep_all_models else session.keep_models,
        min_baseline=session.request.min_baseline,
    )


def _score_others(session: SearchSession, kept: Trial) -> Trial:
    """The best trial, once the others whose models are kept are there and scored on all samples too.

    Those were stopped early, mostly, and what they score then may bring up others, or a better best; so many are scored
    as CLOSEST times those to keep, at most. What cannot be built or run is told, and is not among them.
    """
    failed: set[int] = set()
    for _ in range(CLOSEST * session.keep_models if session.keep_models > 1 else 0):
        trials = [trial for trial in session.study.trials() if trial.number not in failed]
        others = kept_trials(trials, kept, session.max_drop, session.keep_models)[1:]
        trial = next((one for one in others if one.state is State.STOPPED or _is_changed(session, one)), None)
        if trial is None or session.has_no_time(f"trial {trial.number} was not scored on all samples"):
            break
        try:
            if _is_changed(session, trial):
                session.on_progress(f"building trial {trial.number} again")
                folder = session.folder.trial(trial.number)
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                session.builder.build(trial.plan, folder)
            session.study.amend(score_on_all(session, trial))
        except TrialError as error:
            failed.add(trial.number)
            session.listener(Warned(f"the model of trial {trial.number} is not kept: {error}"))
        kept = keep_best(session, [one for one in session.study.trials() if one.number not in failed]) or kept
    return kept


def _is_changed(session: SearchSession, trial: Trial) -> bool:
    """Whether files of a trial are not there, or not as when it was scored."""
    return bool(changed_files(session.folder.trial(trial.number), trial.digests))


def add_lost_samples(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with the samples that its best trial has lost; what goes wrong there does not lose it."""
    if result.best is None:
        return result
    try:
        changes = load_changes(session.folder.trial(result.best.number))
        return replace(result, lost=lost_samples(changes, session.scorer.subset.data))
    except (RunError, DataError, OSError) as error:
        session.listener(Warned(f"lost samples are not named: {error}"))
        return result


def _scored_on_all(session: SearchSession, kept: Trial) -> Trial:
    """The best trial, scored on all samples: where it was stopped early, another may be the best then."""
    failed: set[int] = set()
    for scored_before in range(CLOSEST):
        if kept.state is not State.STOPPED and not _scored_elsewhere(session, kept):
            return kept
        if scored_before and session.has_no_time(f"trial {kept.number} was not scored on all samples"):
            break
        scored = _score_on_all(session, kept)
        if scored is None:
            failed.add(kept.number)
        else:
            session.study.amend(scored)
        kept = keep_best(session, [trial for trial in session.study.trials() if trial.number not in failed]) or kept
    done = [trial for trial in session.study.trials() if trial.state is State.DONE]
    return keep_best(session, done) or kept


def _scored_elsewhere(session: SearchSession, trial: Trial) -> bool:
    """Whether a worker scored the trial that does not have this disk: which samples changed is not known here."""
    changes = session.folder.trial(trial.number) / CHANGES
    return bool(session.request.storage) and session.metric.per_sample and not changes.is_file()


def _score_on_all(session: SearchSession, trial: Trial) -> Trial | None:
    """A trial, with its score on all samples; None where the model cannot be run on them."""
    try:
        return score_on_all(session, trial)
    except TrialError as error:
        session.listener(Warned(f"the best model cannot be scored on all samples: {error}"))
        return None


def add_costly_layers(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with what the layers of a best trial that missed cost."""
    if result.best is None or result.verdict is not Verdict.MISSED:
        return result
    return replace(result, costly=costly_layers(session, result.best))


def add_latency(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with the latency of the float model and the best; what goes wrong there does not lose the result."""
    model = result.model
    if model is None or (is_lite(model) and session.has_no_time("latency was not measured")):
        return result
    try:
        session.on_progress("latency")
        return replace(result, latency=run_latency(session.builder.model, session.scorer.subset.data, model))
    except UserFunctionError:
        raise
    except (AutoquantError, OSError, MemoryError) as error:
        session.listener(Warned(f"latency could not be measured: {error}"))
        return result


def verify(session: SearchSession, result: SearchResult) -> SearchResult:
    """Score the best model in TensorFlow, or compare a .tflite with the reference kernels; score.json has it too.

    Nothing is done where there is no best model, or where it is to be certified in TensorFlow. The result is known
    already: what goes wrong here is a warning, but for a folder that cannot be written (RunError).
    """
    if result.model is None:
        return result
    if session.terms.engine != session.runtime:
        certifiable = session.splits.holdout is not None and result.verdict is not Verdict.MISSED
        return result if certifiable else _rescored(session, result, result.model)
    return _compared(session, result, result.model) if is_lite(result.model) else result


def _rescored(session: SearchSession, result: SearchResult, model: Path) -> SearchResult:
    """The result with a score from the saved file in the runtime that it is for; warns of another verdict there."""
    if session.has_no_time(NOT_RESCORED):
        return result
    try:
        with session.limit.enforced():
            score = score_in_runtime(session, model)
    except OutOfTime:
        session.has_no_time(NOT_RESCORED)
        return result
    except TrialError as error:
        session.listener(Warned(f"the best model cannot be scored in TensorFlow: {error}"))
        return result
    add_to_score(model, "score_tensorflow", score)
    loss = drop_from(result.baseline, score, higher_is_better=session.metric.higher_is_better)
    verdict = Verdict.MET if within(loss, session.max_drop) else Verdict.MISSED
    if verdict is not result.verdict:
        there = "is within" if verdict is Verdict.MET else "is not within"
        engine = session.scorer.engine.version
        here = f"it scores {result.score:.6g} on {engine}, by which the verdict is '{result.verdict}'"
        session.listener(Warned(f"in TensorFlow the best model scores {score:.6g}, which {there} tolerance; {here}"))
    return replace(result, score_tensorflow=score)


def score_in_runtime(session: SearchSession, model: Path) -> float:
    """The score of a file on all samples of the search, in the runtime that it is for. Raises TrialError."""
    on_progress = session.on_progress("best model in TensorFlow")
    return session.scorer.score_all(model, engine=session.open_runtime(), on_progress=on_progress).score.value


def _compared(session: SearchSession, result: SearchResult, model: Path) -> SearchResult:
    """The result with a comparison of the best .tflite on XNNPACK and on the reference kernels."""
    from autoquant.tuning.verification import verify as compare_kernels

    if session.has_no_time("the best model was not compared with the reference kernels"):
        return result
    try:
        found = compare_kernels(
            model,
            session.scorer.program,
            session.scorer.subset,
            clock=session.limit.clock,
            seconds=session.limit.left(),
            on_progress=session.on_progress("reference kernels"),
        )
    except (RunError, UserFunctionError):
        raise
    except (AutoquantError, MemoryError) as error:
        session.listener(Warned(f"the best model could not be compared with the reference kernels: {error}"))
        return result
    add_to_score(model, "verification", encode(found))
    return replace(result, verification=found)
