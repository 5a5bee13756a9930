"""A worker at work: it takes trials that the owner gives it, builds and scores them, and says how they ended."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from autoquant.errors import AutoquantError, RunError, StorageError
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.formats.codec import encode
from autoquant.tuning.events import Listener, TrialStarted, Warned, WorkerEnded, progress, reporter
from autoquant.tuning.fleet.board import PERIOD, WORKER, Board, Dismissed
from autoquant.tuning.fleet.kept_results import KeptResults
from autoquant.tuning.fleet.messages import (
    END,
    JOB,
    LEFT,
    REFUSED,
    RESULT,
    Job,
    Result,
    WorkerFacts,
    has_ended,
    leave_for_dead,
    read_job,
    result_facts,
)
from autoquant.tuning.session import TimeLimit
from autoquant.tuning.study.artifacts import Artifacts
from autoquant.tuning.study.run_folder import CHANGES
from autoquant.tuning.study.study import Space
from autoquant.tuning.study.trial import Trial, as_told, sent_trial
from autoquant.tuning.trial_steps import carried_out, may_be_best, may_be_closest
from autoquant.tuning.worker import LocalWorker

SHORTEST, LONGEST, SHARE = 0.05, 1.0, 0.05
"""Seconds from one look for a job to the next: at least, at most, and as a share of those already waited."""
ENDED_SECONDS = 10.0
"""Seconds from one look whether the search has ended to the next: whoever joins late is not told."""


class Revoked(BaseException):  # no function of the user's must take it for an error
    """The owner wants the job back that is being carried out."""


@dataclass(frozen=True)
class Joined:
    """A run as a worker of it has opened it: what carries trials out, and the space that says what their points mean.

    `fetch` gets files that the owner has computed since. Trials are built in `folder`; where that is on a disk that the
    owner does not have, files of what may be the best are left among the `artifacts`, if it wants them there. Results
    are `kept` until they are told.
    """

    board: Board
    facts: WorkerFacts
    worker: LocalWorker
    space: Space
    folder: Path
    kept: KeptResults
    fetch: Callable[[], None] = lambda: None
    artifacts: Artifacts | None = None


class AtWork:
    """Carries out what the owner gives, one trial after the other."""

    def __init__(
        self,
        joined: Joined,
        listener: Listener,
        *,
        max_trials: float = math.inf,
        idle: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        period: float = PERIOD,
    ) -> None:
        self._joined = joined
        self._board = joined.board
        self._listener = listener
        self._max_trials, self._idle = max_trials, idle
        self._clock, self._sleep, self._period = clock, sleep, period
        self._limit = TimeLimit(clock, clock())
        self._member = -1
        self._job, self._carried, self._doing = "", "", "waiting"
        self._number = -1
        self._revoked = False
        self._done = 0

    def run(self) -> str:
        """Work until there is a reason to leave, which is given. Raises RunError where the owner wants no more of it.

        Raises KeyboardInterrupt once the trial was given back.
        """
        while True:
            try:
                return self._as_member()
            except Dismissed:
                self._joined.kept.drop(self._number)
                lost = f": its result of {self._carried} is dropped" if self._carried else ""
                self._warn(f"the search heard nothing of this worker for too long, and gave it up{lost}; joining again")
                self._rest()

    def _as_member(self) -> str:
        kept = self._joined.kept
        self._member = self._board.join(WORKER, encode(replace(self._joined.facts, kept=kept.numbers)))
        for member, process in kept.workers.items():
            leave_for_dead(self._board, member, process)  # whose trials this one has the results of
        why = "was interrupted"
        try:
            with self._board.alive(self._member, lambda: self._doing, heard=self._hear, period=self._period) as gone:
                why = self._work(gone.is_set)
                return why
        except AutoquantError as error:
            why = f"left: {error}"
            raise
        finally:
            self._leave(why)

    def _leave(self, why: str) -> None:
        with suppress(Dismissed, StorageError):  # which is why it leaves, then
            self._board.say(self._member, LEFT, why)
            self._board.leave(self._member)

    def _work(self, dismissed: Callable[[], bool]) -> str:
        seen = ""
        while self._done < self._max_trials:
            given = self._next(seen, dismissed)
            if given is None:
                return f"had nothing to do for {self._idle:g} s"
            if REFUSED in given:
                raise RunError("the search", f"sends this worker away: {given[REFUSED]}", hint="see that first")
            if END in given:
                self._drop_kept()
                return "the search has ended" + (f": {given[END]}" if given[END] else "")
            job = read_job(given)
            seen = self._job = job.name
            try:
                self._carry_out(job)
            except Revoked:
                self._warn(f"the search wants {self._carried} no more")
            self._rest()
        return f"carried out {self._done} trials"

    def _drop_kept(self) -> None:
        """The search has ended: what was not told is told no more."""
        for number in self._joined.kept.numbers:
            self._warn(f"the result of trial {number} that was kept here is dropped: the search has ended without it")
            self._joined.kept.drop(number)

    def _rest(self) -> None:
        self._job, self._carried, self._doing = "", "", "waiting"

    def _next(self, seen: str, dismissed: Callable[[], bool]) -> Mapping[str, Any] | None:
        """What the owner says, once that is new; None where it says nothing for too long."""
        begin = self._clock()
        look = begin + (ENDED_SECONDS if seen else 0.0)
        reporter(self._listener, "waiting for a trial")
        while True:
            if dismissed():
                raise Dismissed
            given: Mapping[str, Any] = self._board.read(self._member).get(JOB) or {}
            if given and given.get("name") != seen:
                return given
            if self._clock() >= look:
                look += ENDED_SECONDS
                if has_ended(self._board):
                    return {END: ""}
            waited = self._clock() - begin
            if waited >= self._idle:
                return None
            self._sleep(min(max(SHARE * waited, SHORTEST), LONGEST))

    def _carry_out(self, job: Job) -> None:
        trial = sent_trial(job.trial, self._joined.space.plan)
        self._revoked, self._carried = False, f"trial {trial.number}"
        self._doing = self._carried
        self._number = trial.number
        self._listener(TrialStarted(trial.number, trial.why, trial.int8_layers, trial.int8_share, trial.int16_layers))
        folder, kept = self._joined.folder / f"{trial.number:04d}", self._joined.kept
        facts = kept.find(job)
        if facts is None:
            trial, files = self._carried_out(job, trial, folder)
            facts = result_facts(Result(job.name, trial, files))
            try:
                kept.keep(job, self._member, facts)
            except RunError as error:
                self._warn(f"the result of trial {trial.number} is lost if it cannot be told: {error}")
        else:
            trial = as_told(facts["trial"], trial, "result")
            self._warn(f"trial {trial.number} was carried out here before: its result is told now")
        self._board.say(self._member, RESULT, {**facts, "job": job.name})
        kept.drop(trial.number)
        if not self._joined.facts.folder:  # the owner does not look there
            shutil.rmtree(folder, ignore_errors=True)
        self._done += 1
        self._listener(WorkerEnded(trial, self._done))

    def _carried_out(self, job: Job, trial: Trial, folder: Path) -> tuple[Trial, Mapping[str, str]]:
        """A trial as it ended, and the files of it that were left for the owner."""
        self._joined.fetch()
        folder.mkdir(parents=True, exist_ok=True)
        seconds = math.inf if job.seconds is None else job.seconds
        trial = carried_out(self._joined.worker, trial, job.rules, folder, self._begin, self._limit, seconds)
        return trial, self._left(trial, job, folder)

    def _left(self, trial: Trial, job: Job, folder: Path) -> Mapping[str, str]:
        """Leave the files of a trial that may be the best for the owner, which builds them again where that fails."""
        artifacts = self._joined.artifacts
        if artifacts is None or not (may_be_best(trial, job.rules) or may_be_closest(trial, job.closest)):
            return {}
        what = f"storing the files of trial {trial.number}"
        self._report(what, 0, 0)
        written = [path for name in (*trial.digests, CHANGES) if (path := folder / name).is_file()]
        try:
            return artifacts.put(trial.number, written)
        except RunError as error:
            self._warn(f"{what} failed, so the search builds them again: {error}")
            return {}

    def _begin(self, what: str) -> OnProgress:
        report = self._limit.bounded(partial(self._report, what))
        report(0, 0)
        return report

    def _report(self, what: str, done: int, total: int) -> None:
        if self._revoked:
            raise Revoked
        self._doing = what + (f" {done:,}/{total:,}" if total and done else "")
        progress(self._listener, what, done, total)

    def _hear(self, said: Mapping[str, Any]) -> None:
        """What the owner wants now, in the thread that gives the signs of life."""
        job = self._job
        if job and (said.get(JOB) or {}).get("name") != job:
            self._revoked = True

    def _warn(self, text: str) -> None:
        self._listener(Warned(text))
