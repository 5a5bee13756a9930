"""The steps of one trial, whoever carries it out: what it begins with, when its scoring stops, and how it ends."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.errors import TrialTimeout
from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.evaluation.statistics.sequential import alpha_of
from autoquant.formats.config_json import plan_digest
from autoquant.tuning.events import TrialEnded
from autoquant.tuning.restore import keep_best
from autoquant.tuning.result import Ended
from autoquant.tuning.session import Session, TimeLimit
from autoquant.tuning.study.choices import LATENCY
from autoquant.tuning.study.trial import State, Trial, write_score
from autoquant.tuning.worker import Begin, Worker, failed


def reason_to_end(session: Session, *, running: int = 0) -> Ended | None:
    """Why the search ends before another trial, if it does; so many are `running`."""
    study, budget, kept = session.study, session.budget, session.study.best
    if kept is not None and kept.meets(session.max_drop):
        if kept.objective <= session.objective.lowest:
            return Ended.FASTEST if session.objective.name == LATENCY else Ended.NOTHING_BETTER
        if budget.stop_on_target:
            return Ended.TARGET
    if len(study) + running >= budget.max_trials:
        return Ended.TRIALS
    # Another must not begin that cannot end in time if it takes as long as the longest.
    return Ended.TIMEOUT if study.longest + session.seconds_reserved >= session.limit.left() else None


def costed(session: Session, proposed: Trial) -> Trial:
    """A trial with what its plan costs."""
    workload = session.builder.workload
    return replace(
        proposed,
        int8_share=workload.int8_share(proposed.plan),
        int16_share=workload.int16_share(proposed.plan),
        float_only=workload.float_only,
        objective=session.objective(proposed.plan),
    )


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


def carried_out(
    worker: Worker, trial: Trial, rules: StoppingRules, folder: Path, begin: Begin, limit: TimeLimit, seconds: float
) -> Trial:
    """A trial that a worker has carried out, or that has failed because it took longer than so many seconds.

    Raises as `Worker.run`, and OutOfTime.
    """
    try:
        with limit.of_trial(seconds):
            return worker.run(trial, rules, folder, begin)
    except TrialTimeout:
        return failed(trial, f"it took longer than --trial-timeout {seconds:g}s", seconds)


def may_be_best(trial: Trial, rules: StoppingRules) -> bool:
    """Whether a trial that has ended may be better than the best that there was by these rules."""
    return bool(trial.within) and rules.improves


def closest_drop(session: Session) -> float | None:
    """The drop of the closest trial while none is within tolerance, of which there is any at first; None after that."""
    kept = session.study.best
    if kept is None or kept.drop is None:
        return sys.float_info.max
    return None if kept.meets(session.max_drop) else kept.drop


def may_be_closest(trial: Trial, closest: float | None) -> bool:
    """Whether a trial that has ended may be the closest, while none is within tolerance."""
    return closest is not None and trial.drop is not None and trial.drop <= closest


def concluded(session: Session, trial: Trial, folder: Path) -> Trial:
    """A trial that has ended, with its score.json. Raises RunError where that cannot be written."""
    if trial.at_fault and not session.space.may_be_float(trial.at_fault):
        trial = replace(trial, at_fault="")
    write_score(folder, trial, session.terms)
    return trial


class Failures:
    """How many trials in a row failed that no layer explains."""

    def __init__(self) -> None:
        self.count = 0

    def hear(self, trial: Trial) -> None:
        """A trial has ended."""
        if not trial.at_fault:
            self.count = self.count + 1 if trial.state is State.FAILED else 0


def finish(session: Session, trial: Trial) -> None:
    """Record how a trial ended, and keep the best model."""
    session.study.finish(trial)
    kept = keep_best(session)
    session.listener(TrialEnded(trial, kept, len(session.study), session.limit.used()))
