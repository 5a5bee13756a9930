"""The Optuna study of a run: every trial, in a journal file that survives whatever happens to the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from autoquant.calibration.plan import Plan
from autoquant.errors import RunError
from autoquant.formats.codec import decode, encode, without_nulls
from autoquant.formats.config_json import config_text
from autoquant.formats.strict import Fields
from autoquant.tuning.sampling.proposer import superfluous
from autoquant.tuning.sampling.reading import OUTCOME
from autoquant.tuning.study.space import Choice, Parameters, Start, switch_of
from autoquant.tuning.study.trial import State, Trial

NAME = "autoquant"
CORRECTED = "corrected"
"""The attribute of the study that holds what became known of trials after they had ended, by number."""
ATTEMPTS = 3
"""So often is a plan begun whose process dies; perhaps it dies of the plan."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that the study proposes, why, in which phase of the search, and the most samples that it is to see."""

    number: int
    plan: Plan
    why: str
    parameters: Parameters
    phase: str = ""
    max_samples: int | None = None


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

    The trial's objective is minimized under the constraint that the drop is allowed. `proposer` chooses the plans that
    follow the starting points, which are those of the space where no others are given; by default it is TPE, whose
    proposals depend on the seed and on the trials that ended, in their order, and on nothing else. A plan that was cut
    off is proposed again, after those that wait: once the starting points are done, a study that was interrupted goes
    on as if it had not been. A plan that failed for one layer's sake waits to be tried with that in float: starting
    points, and what TPE learns from, must not all fail alike.
    """

    def __init__(
        self,
        journal: Path,
        space: Space,
        *,
        seed: int = 0,
        allowed: float,
        proposer: Proposer | None = None,
        starts: Iterable[Start] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        self._study = optuna.create_study(storage=storage, study_name=NAME, direction="minimize", load_if_exists=True)
        self._journal = journal
        self._space = space
        self._allowed = allowed
        self._starts = list(space.starts() if starts is None else starts)
        self._proposer = proposer or Tpe(seed, len(self._starts))
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(choices) for name, choices in space.dimensions.items()
        }
        self._running: optuna.Trial | None = None
        self._end_cut_off()
        self._trials = [self._trial(frozen) for frozen in self._study.get_trials(deepcopy=False) if _counts(frozen)]
        self._known: dict[str, Trial] = {}
        for trial in self._trials:
            self._remember(trial)
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
            asked = trial.user_attrs
            why, limit = asked.get("why", "TPE"), asked.get("limit")
            if not plan.int8:
                trial.set_user_attr("skipped", "no layer in INT8")
                self._study.tell(trial, state=TrialState.PRUNED)
            elif (earlier := self._known.get(config_text(plan))) is not None and _answers(earlier, limit):
                self._repeat(trial, earlier.number)
            elif not isinstance(self._proposer, Tpe) and (reason := superfluous(self._study, trial)):
                trial.set_user_attr("skipped", reason)
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._running = trial
                return Proposal(trial.number, plan, why, trial.params, asked.get("phase", ""), limit)
        return None

    def finish(self, trial: Trial) -> None:
        """Record how the running trial ended."""
        running = self._running
        assert running is not None
        assert running.number == trial.number
        running.set_user_attr(OUTCOME, without_nulls(encode(trial)))
        if trial.state is State.FAILED:
            if trial.at_fault:  # before it has ended: whatever happens, it is not forgotten
                without = {**running.params, switch_of(trial.at_fault): False}
                why = {"why": f"as trial {trial.number}, with {trial.at_fault} in float"}
                self._study.enqueue_trial(without, why, skip_if_exists=True)
            self._study.tell(running, state=TrialState.FAIL)
        else:
            if trial.drop is not None:
                running.set_constraint("drop", trial.drop - self._allowed)
            if trial.state is State.DONE or trial.within:
                self._study.tell(running, trial.objective)
            else:
                if trial.drop is not None:  # TPE learns from it all the same
                    running.report(trial.objective, trial.samples)
                self._study.tell(running, state=TrialState.PRUNED)
        # Only now: whoever is interrupted before has not finished it.
        self._running = None
        self._trials.append(trial)
        self._remember(trial)

    def correct(self, trial: Trial) -> None:
        """Know more of a trial than when it ended, also when the study is opened again.

        Optuna's trials cannot be changed once they have ended: it stands beside them.
        """
        known = {**self._study.user_attrs.get(CORRECTED, {}), str(trial.number): without_nulls(encode(trial))}
        self._study.set_user_attr(CORRECTED, known)
        self._trials = [trial if one.number == trial.number else one for one in self._trials]
        self._remember(trial)

    def cut_off(self) -> None:
        """The running trial, if any, did not end; it is proposed again when the study is next opened."""
        if self._running is not None:
            self._running.set_user_attr("interrupted", True)  # it is not the plan's fault
            self._study.tell(self._running, state=TrialState.FAIL, skip_if_finished=True)
            self._running = None

    def _remember(self, trial: Trial) -> None:
        """Of several trials of one plan, the last one knows most."""
        self._known[config_text(trial.plan)] = trial

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
                asked: dict[str, Any] = {
                    name: trial.user_attrs[name] for name in ("phase", "limit") if name in trial.user_attrs
                }
                self._study.enqueue_trial(known, {**asked, **facts})

    def _enqueue_starts(self) -> None:
        for start in self._starts:
            self._study.enqueue_trial(dict(start.parameters), {"why": start.why}, skip_if_exists=True)

    def _trial(self, frozen: FrozenTrial) -> Trial:
        outcome = self._study.user_attrs.get(CORRECTED, {}).get(str(frozen.number)) or frozen.user_attrs[OUTCOME]
        found = Fields(outcome, f"{self._journal}:trial {frozen.number}", RunError)
        return decode(Trial, found, plan=self._space.plan(frozen.params), parameters=frozen.params)


def _answers(earlier: Trial, limit: int | None) -> bool:
    """Whether an earlier trial of the same plan tells all that another would that sees `limit` samples."""
    decided = earlier.state is not State.STOPPED or earlier.within is not None or earlier.undecided
    return decided if limit is None else earlier.divergence_samples >= limit or earlier.state is State.FAILED


def _counts(frozen: FrozenTrial) -> bool:
    """Whether a plan was really carried out to its end."""
    outcome = frozen.user_attrs.get(OUTCOME)
    if outcome is None or frozen.state is TrialState.FAIL:
        return _failed(frozen)
    return frozen.state.is_finished()


def _was_cut_off(frozen: FrozenTrial) -> bool:
    running_or_failed = frozen.state in (TrialState.RUNNING, TrialState.FAIL)
    return running_or_failed and not _failed(frozen)


def _failed(frozen: FrozenTrial) -> bool:
    """Whether it is known that a trial failed."""
    return bool(frozen.user_attrs.get(OUTCOME, {}).get("state") == State.FAILED)
