"""The trials of a run: propose, build, score, keep the best, until there is a reason to end."""

from __future__ import annotations

from collections.abc import Callable

from autoquant.errors import AutoquantError, OutOfTime
from autoquant.tuning.events import Resumed, TrialStarted
from autoquant.tuning.fleet.crew import Crew
from autoquant.tuning.fleet.dispatch import run_on_workers
from autoquant.tuning.restore import keep_best
from autoquant.tuning.result import Ended
from autoquant.tuning.session import Session
from autoquant.tuning.study.trial import Trial
from autoquant.tuning.trial_steps import Failures, carried_out, concluded, costed, finish, reason_to_end, rules_of


def run_trials(session: Session, crew: Callable[[], Crew | None] = lambda: None) -> Ended:
    """Run trials until there is a reason to end; an interruption is one, and leaves everything in order.

    They are carried out by the session's worker, or by a `crew` once there is one.
    """
    before = session.study.trials()
    kept = keep_best(session)
    if before:
        session.listener(Resumed(before, kept, session.limit.before))
    try:
        return _run(session, crew)
    except KeyboardInterrupt:
        session.study.interrupt()
        keep_best(session)  # it may have been interrupted in that
        return Ended.INTERRUPTED
    except AutoquantError:
        session.study.interrupt()
        raise
    finally:
        session.worker.close()


def _run(session: Session, crew: Callable[[], Crew | None]) -> Ended:
    failures = Failures()
    while True:
        ended = reason_to_end(session)
        if ended is not None:
            return ended
        if (called := crew()) is not None:
            return run_on_workers(session, called)
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
        finish(session, trial)
        failures.hear(trial)
        if failures.count == session.budget.max_failures:
            return Ended.FAILURES


def run_trial(session: Session, proposed: Trial) -> Trial:
    """Build and score the plan of a running trial, and write its score.json. Raises OutOfTime."""
    trial = costed(session, proposed)
    session.listener(TrialStarted(trial.number, trial.why, trial.int8_layers, trial.int8_share, trial.int16_layers))
    folder, seconds = session.folder.make_trial(trial.number), session.budget.trial_timeout
    session.worker.start(session.on_progress)
    rules, limit = rules_of(session, trial), session.limit
    trial = carried_out(session.worker, trial, rules, folder, session.on_progress, limit, seconds)
    return concluded(session, trial, folder)
