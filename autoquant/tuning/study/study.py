"""The Optuna study of a run: every trial, in a storage that survives whatever happens to the process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from autoquant.calibration.plan import Plan
from autoquant.errors import RunError
from autoquant.formats.config_json import plan_digest
from autoquant.tuning.study.journal import (
    OUTCOME,
    REPEATS,
    SUGGESTED,
    Distributions,
    has_ended,
    is_cut_off,
)
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, switch_of
from autoquant.tuning.study.stored_trials import ATTEMPT, StoredTrials
from autoquant.tuning.study.stores import StudyStore
from autoquant.tuning.study.trial import State, Trial, as_told, best

ATTEMPTS = 3
"""So often is a plan begun whose process dies; perhaps it dies of the plan."""


class Space(Protocol):
    """What may be chosen: dimensions by name with their choices, the points to try first, and what a point means."""

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]: ...  # noqa: D102

    def starts(self) -> Iterator[Suggestion]: ...  # noqa: D102

    def plan(self, parameters: Parameters) -> Plan: ...  # noqa: D102

    def may_be_float(self, name: str) -> bool:
        """Whether a plan may leave a layer in float because another failed in INT8."""
        ...


class Sampler(Protocol):
    """Chooses the points that follow the starting points."""

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next point, given all trials by number, running ones too; None where nothing is left to try.

        With trials that run, None says that nothing can be tried before one of them has ended. It is called again where
        the point means a plan that was tried, with that trial among them, or one that runs: with trials that run, the
        one of that plan is then there once more, at that point.
        """
        ...


class Study:
    """Proposes plans, and stores the trials of them.

    The trial's objective is minimized under the constraint that the drop is within tolerance. `sampler` chooses the
    plans that follow the starting points, which are those of the space where no others are given. A trial that was cut
    off waits again, under its number and before all that follow: a study that was interrupted goes on as if it had not
    been. One that had ended by its folder (`stored`) has ended. A plan that failed because of one layer waits to be
    tried with that in float: starting points, and what samplers learn from, must not all fail alike.

    A trial is stored in a few writes, each of which waits for the disk, whatever the number of dimensions: it waits,
    with all of its parameters; it runs; how it ended, with its constraint and what people look for. `best`
    is the best trial so far (trial.py), `longest` the seconds of the one that took longest, without any minus infinity,
    and `slowest` those of scoring one sample, in the trial that took longest for it.

    Where trials are carried out `on_workers`, none is to blame for the death of the process that has the study.

    For optuna-dashboard what is minimized is called `minimized`, a score by its `metric`, and a trial that is not
    within tolerance is pruned: its best trial is the lowest value, whatever the constraints.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        sampler: Sampler,
        *,
        max_drop: float,
        starts: Iterable[Suggestion] | None = None,
        stored: Mapping[int, Trial] = MappingProxyType({}),
        metric: str = "score",
        minimized: str = "",
        on_workers: bool = False,
    ) -> None:
        self._on_workers = on_workers
        self._space = space
        self._sampler = sampler
        self._max_drop = max_drop
        self._stored = StoredTrials(store, distributions_of(space.dimensions), metric=metric, max_drop=max_drop)
        self._stored.name_objective(minimized)
        self._running: dict[int, tuple[FrozenTrial, Trial]] = {}
        self._trials: dict[int, Trial] = {}
        self.best: Trial | None = None
        self.longest = -math.inf
        self.slowest = 0.0
        self._repeats: dict[int, Trial] = {}
        self._known: dict[bytes, dict[int, Trial]] = {}
        self._exhausted = -1
        self._read()
        self._reopen(stored)
        for start in space.starts() if starts is None else starts:
            self._enqueue(start)
        for trial in self.trials():
            self._enqueue_in_float(trial)

    def trials(self) -> tuple[Trial, ...]:
        """All trials that ended, by number; repetitions and those cut off are none."""
        return tuple(map(self._trials.__getitem__, sorted(self._trials)))

    def __len__(self) -> int:
        """The number of these trials."""
        return len(self._trials)

    def wall_seconds(self) -> float:
        """The seconds in which any trial that has ended ran, those in which several did counted once."""
        return self._stored.wall_seconds()

    def propose(self, attempts: int = 50) -> Trial | None:
        """A running trial of the next plan that was not tried yet; None when so many in a row brought nothing new.

        No plan of a trial that runs. None while trials run means that it is worth asking again once one has ended;
        before that it costs nothing.
        """
        if self._running and self._exhausted == len(self._trials):
            return None
        proposed = self._next(attempts)
        self._exhausted = -1 if proposed else len(self._trials)
        return proposed

    def finish(self, trial: Trial) -> None:
        """Record how a running trial ended."""
        stored, _ = self._running[trial.number]
        self._enqueue_in_float(trial)  # before it has ended: whatever happens, it is not forgotten
        self._stored.end(stored, trial)
        # Only now: whoever is interrupted before has not finished it.
        del self._running[trial.number]
        self._remember(trial)

    def amend(self, trial: Trial) -> None:
        """Know more of a trial than when it ended, also when the study is opened again."""
        self._stored.amend(trial)
        self._remember(trial)

    def interrupt(self) -> None:
        """Running trials, if any, did not end; they wait to begin again, which is not the plan's fault.

        One whose end was being recorded may have ended.
        """
        known = self._stored.every() if self._running else ()
        for number, (stored, _) in self._running.items():
            if has_ended(known[number]):
                self._remember(self._outcome(known[number], known[number].user_attrs[OUTCOME]))
            else:
                self._stored.wait_again(stored)
        self._running.clear()

    def _next(self, attempts: int) -> Trial | None:
        refused: list[Trial] = []
        for _ in range(attempts):
            begun = self._begin(refused, attempts)
            if begun is None:
                return None
            trial = self._pending(begun)
            earlier = self._answered(trial.plan, trial.max_samples)
            if not trial.plan.int8:
                self._stored.skip(begun, "no layer in INT8")
            elif earlier is not None:
                self._stored.repeat(begun, earlier.number)
                self._repeats[trial.number] = _repeated(trial, earlier)
            else:
                self._running[trial.number] = begun, trial
                return trial
        return None

    def _begin(self, refused: list[Trial], most: int) -> FrozenTrial | None:
        """Begin the first trial that waits and can be tried; where none does, the sampler gives its point.

        A point that means a plan that runs can wait until that has ended. Where it comes from the sampler it is not
        stored, nor is, while trials run, what repeats one that has ended: it is `refused`, `most` of them in a row, and
        the sampler is told.
        """
        waiting = self._first_waiting()
        if waiting is not None:
            self._stored.begin(waiting)
            return waiting
        while len(refused) < most:
            running = [trial for _, trial in self._running.values()]
            known = [*self._trials.values(), *self._repeats.values(), *running, *refused]
            suggestion = self._sampler(sorted(known, key=attrgetter("number")))
            if suggestion is None:
                return None
            same = self._same(suggestion.parameters, suggestion.max_samples) if self._running else None
            if same is None:
                return self._stored.add(suggestion, begun=True)
            refused.append(replace(same, parameters=suggestion.parameters))
        return None

    def _same(self, parameters: Parameters, max_samples: int | None) -> Trial | None:
        """A trial of the plan of a point that leaves another nothing to find out: one that runs, or has ended."""
        plan = self._space.plan(parameters)
        return self._running_alike(plan, max_samples) or self._answered(plan, max_samples)

    def _first_waiting(self) -> FrozenTrial | None:
        pending = ((one, self._pending(one)) for one in self._stored.waiting)
        return next((one for one, trial in pending if not self._running_alike(trial.plan, trial.max_samples)), None)

    def _running_alike(self, plan: Plan, max_samples: int | None) -> Trial | None:
        """A running trial of the same plan, on as many samples at least."""
        digest = plan_digest(plan)
        running = (trial for _, trial in self._running.values() if trial.reaches(max_samples))
        return next((trial for trial in running if plan_digest(trial.plan) == digest), None)

    def _answered(self, plan: Plan, max_samples: int | None) -> Trial | None:
        """The last of the trials of a plan that ended and tell all that another on so many samples would."""
        known = self._known.get(plan_digest(plan), {})
        answers = (known[number] for number in sorted(known, reverse=True))
        return next((earlier for earlier in answers if _answers(earlier, max_samples)), None)

    def _enqueue_in_float(self, trial: Trial) -> None:
        """Let the point of a trial that failed wait with the layer at fault in float."""
        if trial.at_fault:
            without = {**trial.parameters, switch_of(trial.at_fault): False}
            why = f"as trial {trial.number}, with {trial.at_fault} in float"
            self._enqueue(Suggestion(without, why))

    def _enqueue(self, suggestion: Suggestion) -> None:
        """Let a point wait, unless it is there."""
        if not self._stored.has_point(suggestion.parameters):
            self._stored.add(suggestion)

    def _pending(self, stored: FrozenTrial) -> Trial:
        """A trial of which nothing is known yet but what was suggested."""
        suggested, parameters = self._suggested(stored), stored.params
        return Trial(stored.number, State.RUNNING, self._space.plan(parameters), parameters=parameters, **suggested)

    def _suggested(self, stored: FrozenTrial) -> dict[str, Any]:
        """What was suggested with the point of a trial. Raises RunError where that, or the point, is not known."""
        known = stored.user_attrs
        if not known.keys() >= set(SUGGESTED) or stored.params.keys() != self._space.dimensions.keys():
            hint = "was it written by another version of autoquant? start a new run"
            raise RunError(f"{self._stored.where}:trial {stored.number}", "does not say what was suggested", hint=hint)
        return {name: known[name] for name in SUGGESTED}

    def _remember(self, trial: Trial) -> None:
        amended = trial.number in self._trials
        self._trials[trial.number] = trial
        self._known.setdefault(plan_digest(trial.plan), {})[trial.number] = trial
        some = self._trials.values() if amended or self.best is None else (self.best, trial)
        self.best = best(some, self._max_drop)
        self.longest = max(self.longest, sum(trial.seconds.values()))
        if trial.samples:
            self.slowest = max(self.slowest, trial.seconds.get("score", 0.0) / trial.samples)

    def _read(self) -> None:
        """Read all trials that ended. Raises RunError where one was damaged."""
        amended = self._stored.amended
        every = self._stored.every()
        for frozen in filter(has_ended, every):
            self._remember(self._outcome(frozen, amended.get(str(frozen.number)) or frozen.user_attrs[OUTCOME]))
        for frozen in every:  # what they repeat may have a larger number: that of a trial that ended earlier
            if REPEATS in frozen.user_attrs and frozen.state.is_finished():
                earlier = self._trials[frozen.user_attrs[REPEATS]]
                self._repeats[frozen.number] = _repeated(self._pending(frozen), earlier)

    def _outcome(self, frozen: FrozenTrial, outcome: object) -> Trial:
        """How a trial ended, by what was written of it. Raises RunError."""
        return as_told(outcome, self._pending(frozen), f"{self._stored.where}:trial {frozen.number}")

    def _reopen(self, stored: Mapping[int, Trial]) -> None:
        """Take over what has ended, by its folder or all but; what else a process that died had begun waits again."""
        every = self._stored.every()
        alone = sum(frozen.state is TrialState.RUNNING for frozen in every) <= 1
        for frozen in every:
            told, known = stored.get(frozen.number), self._trials.get(frozen.number)
            if told is not None and told.parameters == frozen.params:
                pending = self._pending(frozen)
                told = replace(told, plan=pending.plan, parameters=pending.parameters, note=pending.note)
            else:
                told = self._outcome(frozen, frozen.user_attrs[OUTCOME]) if OUTCOME in frozen.user_attrs else None
            if known is not None and told not in (None, known) and frozen.number in stored:
                self.amend(told)  # the process died before it was amended here
            elif is_cut_off(frozen):
                self._end_or_wait(frozen, told, alone=alone)

    def _end_or_wait(self, frozen: FrozenTrial, told: Trial | None, *, alone: bool) -> None:
        """End a trial that was cut off as it is told to have ended; else it waits again, unless it dies each time.

        Only of what ran `alone`: of several nobody knows which one the process died of.
        """
        if frozen.state is TrialState.WAITING and told is None:
            return
        pending = self._pending(frozen)
        attempt = frozen.user_attrs.get(ATTEMPT, 1)
        blamed = alone and not self._on_workers
        if told is None and (attempt < ATTEMPTS or not blamed):
            self._stored.wait_again(frozen, attempt + blamed)
            return
        if frozen.state is TrialState.WAITING:
            self._stored.begin(frozen)
        self._running[frozen.number] = frozen, pending
        self.finish(told or replace(pending, state=State.FAILED, failure=f"its process died {attempt} times"))


def distributions_of(dimensions: Mapping[str, tuple[Choice, ...]]) -> Distributions:
    """The dimensions of a space as Optuna has them."""
    return {name: optuna.distributions.CategoricalDistribution(choices) for name, choices in dimensions.items()}


def _repeated(trial: Trial, earlier: Trial) -> Trial:
    """A trial of a plan that was tried before: it has become what the other has."""
    own = {name: getattr(trial, name) for name in ("number", "parameters", "why", "phase", "note")}
    return replace(earlier, **own)


def _answers(earlier: Trial, max_samples: int | None) -> bool:
    """Whether an earlier trial of the same plan tells all that another would that sees so many samples."""
    if max_samples is None:
        return earlier.final
    return earlier.divergence_samples >= max_samples or earlier.state is State.FAILED
