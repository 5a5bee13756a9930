"""The trials of a run: propose, build, score, keep the best, until there is a reason to end."""

from __future__ import annotations

from dataclasses import replace

from autoquant.calibration.plan import Plan
from autoquant.errors import AutoquantError, OutOfTime, TrialTimeout
from autoquant.evaluation.scoring.sample_scorer import StoppingRules
from autoquant.evaluation.statistics.sequential import alpha_of
from autoquant.formats.config_json import plan_digest
from autoquant.tuning.events import Resumed, TrialEnded, TrialStarted
from autoquant.tuning.restore import keep_best
from autoquant.tuning.result import Ended
from autoquant.tuning.session import Session
from autoquant.tuning.study.choices import LATENCY
from autoquant.tuning.study.trial import State, Trial, write_score
from autoquant.tuning.worker import failed


def run_trials(session: Session) -> Ended:
    """Run trials until there is a reason to end; an interruption is one, and leaves everything in order."""
    before = session.study.trials()
    kept = keep_best(session)
    if before:
        session.listener(Resumed(before, kept, session.limit.before))
    try:
        return _run(session)
    except KeyboardInterrupt:
        session.study.interrupt()
        keep_best(session)  # it may have been interrupted in that
        return Ended.INTERRUPTED
    except AutoquantError:
        session.study.interrupt()
        raise
    finally:
        session.worker.close()


def _run(session: Session) -> Ended:
    failures = 0
    while True:
        ended = reason_to_end(session)
        if ended is not None:
            return ended
        try:
            with session.limit.enforced():
                session.on_progress("choosing a plan")
                proposed = session.study.propose()
                session.limit.check()
                if proposed is None:
                    return Ended.NOTHING_NEW
                trial = run_trial(session, proposed)
        except OutOfTime:
            session.study.interrupt()
            return Ended.TIMEOUT
        session.study.finish(trial)
        kept = keep_best(session)
        session.listener(TrialEnded(trial, kept, len(session.study), session.limit.used()))
        if not trial.at_fault:
            failures = failures + 1 if trial.state is State.FAILED else 0
        if failures == session.budget.max_failures:
            return Ended.FAILURES


def reason_to_end(session: Session) -> Ended | None:
    """Why the search ends before another trial, if it does."""
    study, budget, kept = session.study, session.budget, session.study.best
    if kept is not None and kept.meets(session.max_drop):
        if kept.objective <= session.objective.lowest:
            return Ended.FASTEST if session.objective.name == LATENCY else Ended.NOTHING_BETTER
        if budget.stop_on_target:
            return Ended.TARGET
    if len(study) >= budget.max_trials:
        return Ended.TRIALS
    # Another must not begin that cannot end in time if it takes as long as the longest.
    return Ended.TIMEOUT if study.longest + session.seconds_reserved >= session.limit.left() else None


def run_trial(session: Session, proposed: Trial) -> Trial:
    """Build and score the plan of a running trial, and write its score.json. Raises OutOfTime."""
    int8_share, objective = session.builder.workload.int8_share(proposed.plan), session.objective(proposed.plan)
    float_only = session.builder.workload.float_only
    trial = replace(proposed, int8_share=int8_share, float_only=float_only, objective=objective)
    session.listener(TrialStarted(trial.number, trial.why, trial.int8_layers, trial.int8_share))
    folder, seconds = session.folder.make_trial(trial.number), session.budget.trial_timeout
    session.worker.start(session.on_progress)
    try:
        with session.limit.of_trial(seconds):
            trial = session.worker.run(trial, rules_of(session, trial), folder, session.on_progress)
    except TrialTimeout:
        trial = failed(trial, f"it took longer than --trial-timeout {seconds:g}s", seconds)
    if trial.at_fault and not session.space.may_be_float(trial.at_fault):
        trial = replace(trial, at_fault="")
    write_score(folder, trial, session.terms)
    return trial


def order_of(plan: Plan) -> int:
    """The number of a plan from which the order of its samples is drawn, whatever the number of its trial."""
    return int.from_bytes(plan_digest(plan)[:8])


def rules_of(session: Session, trial: Trial) -> StoppingRules:
    """When scoring a trial stops early; the error rate of the run is spent over its trials."""
    kept = session.study.best
    return StoppingRules(
        max_drop=session.max_drop,
        alpha=alpha_of(trial.number, session.budget.error_rate),
        order=order_of(trial.plan),
        improves=kept is None or not kept.meets(session.max_drop) or trial.objective < kept.objective,
        max_samples=trial.max_samples,
    )
