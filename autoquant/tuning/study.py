"""The Optuna study of a run: every trial, in a journal file that survives whatever happens to the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from autoquant.calibration.plan import Plan
from autoquant.formats.config_json import config_text
from autoquant.tuning.result import State, Trial
from autoquant.tuning.space import Choice, Parameters, Start, switch_of

NAME = "autoquant"
ATTEMPTS = 3
"""So often is a plan begun whose process dies; perhaps it dies of the plan."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that the study proposes, and why."""

    number: int
    plan: Plan
    why: str


class Space(Protocol):
    """What may be chosen: dimensions by name with their choices, the points to try first, and what a point means."""

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]: ...  # noqa: D102

    def starts(self) -> Iterator[Start]: ...  # noqa: D102

    def plan(self, parameters: Parameters) -> Plan: ...  # noqa: D102


class Proposer(Protocol):
    """What chooses the points that follow the starting points."""

    def prepare(self, study: optuna.Study) -> bool:
        """See to what `study.ask` gives next, by a sampler or a trial that waits; False where nothing is left."""
        ...


@dataclass(frozen=True)
class Tpe:
    """Optuna's TPE, which learns from the trials; at random until `startup` of them ended."""

    seed: int
    startup: int

    def prepare(self, study: optuna.Study) -> bool:
        """A sampler of its own for every trial: what it proposes depends on the history, not on the process."""
        ended = sum(not _was_cut_off(frozen) for frozen in study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, ended]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=self.startup)
        return True


@dataclass(frozen=True)
class Guided:
    """The points that `choose` gives, one after the other, until it gives None; `why` is said of them.

    `choose` is asked again for the next one where a point means a plan that was tried before.
    """

    choose: Callable[[], Parameters | None]
    why: str

    def prepare(self, study: optuna.Study) -> bool:
        """Let the next point wait, unless others are waiting."""
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        chosen = self.choose()
        if chosen is not None:
            study.enqueue_trial(dict(chosen), {"why": self.why})
        return chosen is not None


class Study:
    """Proposes plans and keeps what became of them.

    The trial's objective is minimized under the constraint that the drop is allowed. `proposer` chooses the plans; by
    default it is TPE, whose proposals depend on the seed and on the trials that ended, in their order, and on nothing
    else. A plan that was cut off is proposed again, after those that wait: once the starting points are done, a study
    that was interrupted goes on as if it had not been. A plan that failed for one layer's sake waits to be tried with
    that in float: starting points, and what TPE learns from, must not all fail alike.
    """

    def __init__(
        self, journal: Path, space: Space, *, seed: int = 0, allowed: float, proposer: Proposer | None = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        self._study = optuna.create_study(storage=storage, study_name=NAME, direction="minimize", load_if_exists=True)
        self._space = space
        self._allowed = allowed
        self._starts = list(space.starts())
        self._proposer = proposer or Tpe(seed, len(self._starts))
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(choices) for name, choices in space.dimensions.items()
        }
        self._running: optuna.Trial | None = None
        self._end_cut_off()
        self._trials = [self._trial(frozen) for frozen in self._study.get_trials(deepcopy=False) if _counts(frozen)]
        self._known = {config_text(trial.plan): trial.number for trial in self._trials}
        self._enqueue_starts()

    def trials(self) -> tuple[Trial, ...]:
        """All trials that ended, by number; repetitions and those cut off are none."""
        return tuple(self._trials)

    def propose(self, attempts: int = 50) -> Proposal | None:
        """The next plan that was not tried yet; None when so many proposals in a row brought nothing new."""
        for _ in range(attempts):
            if not self._proposer.prepare(self._study):
                return None
            trial = self._study.ask(self._distributions)
            plan = self._space.plan(trial.params)
            why = trial.user_attrs.get("why", "TPE")
            if not plan.int8:
                trial.set_user_attr("skipped", "no layer in INT8")
                self._study.tell(trial, state=TrialState.PRUNED)
            elif (number := self._known.get(config_text(plan))) is not None:
                self._repeat(trial, number)
            else:
                self._running = trial
                return Proposal(trial.number, plan, why)
        return None

    def finish(self, trial: Trial) -> None:
        """Record how the running trial ended."""
        running = self._running
        assert running is not None
        assert running.number == trial.number
        facts: dict[str, Any] = {name: getattr(trial, name) for name in _ALWAYS}
        facts["seconds"] = dict(trial.seconds)
        if trial.state is State.FAILED:
            for name, value in {**facts, "reason": trial.reason, "at_fault": trial.at_fault}.items():
                running.set_user_attr(name, value)
            if trial.at_fault:  # before it has ended: whatever happens, it is not forgotten
                without = {**running.params, switch_of(trial.at_fault): False}
                why = {"why": f"as trial {trial.number}, with {trial.at_fault} in float"}
                self._study.enqueue_trial(without, why, skip_if_exists=True)
            self._study.tell(running, state=TrialState.FAIL)
        else:
            assert trial.drop is not None
            for name, value in {**facts, "score": trial.score, "drop": trial.drop}.items():
                running.set_user_attr(name, value)
            running.set_constraint("drop", trial.drop - self._allowed)
            self._study.tell(running, trial.objective)
        # Only now: whoever is interrupted before has not finished it.
        self._running = None
        self._trials.append(trial)
        self._known[config_text(trial.plan)] = trial.number

    def cut_off(self) -> None:
        """The running trial, if any, did not end; it is proposed again when the study is next opened."""
        if self._running is not None:
            self._running.set_user_attr("interrupted", True)  # it is not the plan's fault
            self._study.tell(self._running, state=TrialState.FAIL, skip_if_finished=True)
            self._running = None

    def _repeat(self, trial: optuna.Trial, number: int) -> None:
        """Tell Optuna of a plan that was tried before, as trial `number`, what came of it then."""
        earlier = self._study.get_trials(deepcopy=False)[number]
        trial.set_user_attr("repeats", number)
        if earlier.state is TrialState.COMPLETE:
            for name, value in earlier.constraints.items():
                trial.set_constraint(name, value)
            self._study.tell(trial, earlier.value)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def _end_cut_off(self) -> None:
        """Propose again what a process that was killed or interrupted had begun."""
        trials = self._study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("retries") for trial in trials}
        for trial in trials:
            if trial.state is TrialState.RUNNING:
                self._study.tell(trial.number, state=TrialState.FAIL)
            # One that was killed while it was being proposed has not all of its parameters yet.
            known = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            complete = known.keys() == self._distributions.keys()
            attempt = trial.user_attrs.get("attempt", 1) + ("interrupted" not in trial.user_attrs)
            if _was_cut_off(trial) and complete and trial.number not in again and attempt <= ATTEMPTS:
                facts = {"why": f"again, cut off as {trial.number}", "retries": trial.number, "attempt": attempt}
                self._study.enqueue_trial(known, facts)

    def _enqueue_starts(self) -> None:
        for start in self._starts:
            self._study.enqueue_trial(dict(start.parameters), {"why": start.why}, skip_if_exists=True)

    def _trial(self, frozen: FrozenTrial) -> Trial:
        attributes = frozen.user_attrs
        return Trial(
            number=frozen.number,
            state=State.DONE if frozen.state is TrialState.COMPLETE else State.FAILED,
            plan=self._space.plan(frozen.params),
            **{name: attributes[name] for name in _FACTS if name in attributes},
        )


_ALWAYS = ("why", "int8_layers", "int8_share", "objective", "boundaries", "samples")
_FACTS = (*_ALWAYS, "score", "drop", "seconds", "reason", "at_fault")


def _counts(frozen: FrozenTrial) -> bool:
    """Whether a plan was really carried out to its end."""
    if frozen.state is TrialState.FAIL:
        return "reason" in frozen.user_attrs
    return frozen.state is TrialState.COMPLETE and "repeats" not in frozen.user_attrs


def _was_cut_off(frozen: FrozenTrial) -> bool:
    running_or_failed = frozen.state in (TrialState.RUNNING, TrialState.FAIL)
    return running_or_failed and "reason" not in frozen.user_attrs
