"""The trials of a run on workers: as many at a time as there are workers, until there is a reason to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autoquant.errors import OutOfTime
from autoquant.files import writing
from autoquant.formats.config_json import save_config
from autoquant.tuning.fleet.crew import Crew
from autoquant.tuning.fleet.messages import WORKING, Process
from autoquant.tuning.fleet.owner import Ended
from autoquant.tuning.result import Ended as Reason
from autoquant.tuning.session import Session
from autoquant.tuning.study.run_folder import CONFIG
from autoquant.tuning.study.trial import Trial
from autoquant.tuning.trial_steps import (
    Failures,
    carried_out,
    closest_drop,
    concluded,
    costed,
    finish,
    may_be_best,
    may_be_closest,
    reason_to_end,
    rules_of,
)

SHORTEST, LONGEST, SHARE = 0.1, 1.0, 0.02
"""Seconds from one look at the board to the next: at least, at most, and as a share of those without news."""
WAIT = (Reason.TRIALS, Reason.TIMEOUT)
"""Reasons to begin no more trials, for which those that run are waited for as long as there is time."""


def run_on_workers(session: Session, crew: Crew, *, sleep: Callable[[float], None] = time.sleep) -> Reason:
    """Run trials on workers; those that run when there is a reason to end are waited for, or given up.

    An interruption gives them up, and so does an error.
    """
    fleet, failures, happened = crew.fleet, Failures(), session.limit.clock()
    session.on_progress("waiting for workers")
    try:
        while True:
            crew.check()
            for ended in fleet.look():
                happened = session.limit.clock()
                trial = _accepted(session, crew, ended)
                finish(session, trial)
                crew.left.tidy(session, ended.files)
                failures.hear(trial)
            reason = reason_to_end(session, running=fleet.running)
            if failures.count >= session.budget.max_failures:
                return Reason.FAILURES
            if reason is not None and (reason not in WAIT or not fleet.running):
                return reason
            with session.limit.enforced():
                session.limit.check()
                if reason is None and fleet.free > 0:
                    proposed = session.study.propose()
                    if proposed is not None:
                        _give(session, crew, proposed)
                        happened = session.limit.clock()
                        continue
                    if not fleet.running:
                        return Reason.NOTHING_NEW
            sleep(min(max(SHARE * (session.limit.clock() - happened), SHORTEST), LONGEST))
    except OutOfTime:
        return Reason.TIMEOUT
    finally:
        fleet.recall()
        session.study.interrupt()


def _give(session: Session, crew: Crew, proposed: Trial) -> None:
    trial = costed(session, proposed)
    crew.provide(trial.plan)
    seconds = session.budget.trial_timeout
    given = None if math.isinf(seconds) else seconds
    crew.fleet.give(trial, rules_of(session, trial), given, closest_drop(session))


def _accepted(session: Session, crew: Crew, ended: Ended) -> Trial:
    """A trial that a worker has carried out, its folder made of what the worker wrote, as far as that is here.

    One that may be the best, of a machine that computes otherwise than this one, is carried out again here.
    """
    trial, folder = ended.trial, session.folder.make_trial(ended.trial.number)
    if ended.worker is not None:
        trial = replace(trial, host=ended.worker.process.host)
    rules = rules_of(session, trial)
    if ended.worker is not None and not ended.worker.exact and may_be_best(trial, rules):
        session.on_progress(f"trial {trial.number} again, on this machine")
        trial, seconds = replace(trial, host=Process.own().host), session.budget.trial_timeout
        trial = carried_out(session.worker, trial, rules, folder, session.on_progress, session.limit, seconds)
        return concluded(session, trial, folder)
    own = "" if ended.worker is None else ended.worker.folder
    made = session.folder.path / own / folder.name
    if own.startswith(WORKING) and Path(own).name == own and made.is_dir():
        with writing(folder):
            for path in made.iterdir():
                path.replace(folder / path.name)
            made.rmdir()
    elif may_be_best(trial, rules) or may_be_closest(trial, closest_drop(session)):
        crew.left.take(session, trial, ended.files, folder)
    if not (folder / CONFIG).is_file():
        save_config(trial.plan, folder / CONFIG, layers=session.builder.workload.layers)
    return concluded(session, trial, folder)
