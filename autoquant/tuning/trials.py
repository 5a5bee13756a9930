"""The loop: propose, carry out, keep the best, until the target or the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.errors import AutoquantError, DataError, RunError
from autoquant.evaluation.scoring.streaming import Rules
from autoquant.evaluation.statistics.sequential import alpha_of
from autoquant.tuning.blame import layer_at_fault
from autoquant.tuning.builder import Workbench
from autoquant.tuning.events import Listener, Progress, Resumed, TrialEnded, TrialStarted
from autoquant.tuning.objective import Objective
from autoquant.tuning.result import Ended
from autoquant.tuning.study.choices import LATENCY
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.score_json import Terms, write_score
from autoquant.tuning.study.space import SearchSpace
from autoquant.tuning.study.study import Proposal, Study
from autoquant.tuning.study.trial import State, Trial, best

FAILURES = 10
"""So many failures in a row that no layer explains end a search: another plan will not cure what is wrong."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Why the trials ended, and the seconds of all of them and of this session's preparation."""

    ended: Ended
    seconds: float


@dataclass(frozen=True)
class Loop:
    """The trials of one run.

    `allowed` is the largest drop within tolerance, in units of the metric; `begin` when, by the clock, this session
    began: its preparation counts.
    """

    bench: Workbench
    space: SearchSpace
    study: Study
    folder: RunFolder
    request: SearchRequest
    allowed: float
    listener: Listener
    clock: Callable[[], float]
    begin: float
    objective: Objective

    def run(self) -> Ran:
        """Go on until there is a reason to end; an interruption is one, and leaves everything in order."""
        before = self.study.trials()
        earlier = sum(sum(trial.seconds.values()) for trial in before)

        def used() -> float:
            return earlier + self.clock() - self.begin

        kept = self.keep_best()
        if before:
            self.listener(Resumed(before, kept, earlier))
        try:
            ended = self._trials(used)
        except KeyboardInterrupt:
            self.study.cut_off()
            self.keep_best()  # it may have been interrupted in that
            ended = Ended.INTERRUPTED
        except AutoquantError:
            self.study.cut_off()
            raise
        return Ran(ended, used())

    def _trials(self, used: Callable[[], float]) -> Ended:
        failures = 0
        while True:
            enough = self._enough(used())
            if enough:
                return enough
            proposal = self.study.propose()
            if proposal is None:
                return Ended.NOTHING_NEW
            trial = self._carry_out(proposal)
            self.study.finish(trial)
            kept = self.keep_best()
            self.listener(TrialEnded(trial, kept, len(self.study.trials()), used()))
            if not trial.at_fault:
                failures = failures + 1 if trial.state is State.FAILED else 0
            if failures == FAILURES:
                return Ended.FAILURES

    def _enough(self, seconds: float) -> Ended | None:
        """Why the search ends now, if it does."""
        trials = self.study.trials()
        kept = best(trials, self.allowed)
        if kept is not None and kept.meets(self.allowed):
            if kept.objective <= self.objective.lowest:
                return Ended.FASTEST if self.objective.name == LATENCY else Ended.NOTHING_BETTER
            if self.request.stop_on_target:
                return Ended.TARGET
        if len(trials) >= self.request.max_trials:
            return Ended.TRIALS
        # There is always one trial; another must not begin that cannot end in time if it takes as long as the longest.
        if trials and seconds + max(sum(trial.seconds.values()) for trial in trials) >= self.request.timeout:
            return Ended.TIMEOUT
        return None

    def _carry_out(self, proposal: Proposal) -> Trial:
        plan = proposal.plan
        trial = Trial(
            number=proposal.number,
            state=State.FAILED,
            plan=plan,
            why=proposal.why,
            int8_share=self.bench.builder.workload.int8_share(plan),
            objective=self.objective(plan),
            failure="not carried out",
            parameters=proposal.parameters,
            phase=proposal.phase,
            max_samples=proposal.max_samples,
        )
        self.listener(TrialStarted(trial.number, trial.why, trial.int8_layers, trial.int8_share))
        trial = self._measured(trial, self.folder.make_trial(trial.number))
        self.write_score(trial)
        return trial

    def write_score(self, trial: Trial) -> None:
        """Write score.json of a trial. Raises RunError."""
        terms = Terms(
            metric=self.bench.metric.name,
            baseline=self.bench.part.score.value,
            max_drop=self.allowed,
            engine=self.bench.engine.name,
            target=self.bench.builder.target.name,
            objective_name=self.objective.name,
        )
        write_score(self.folder.trial(trial.number), trial, terms)

    def _measured(self, trial: Trial, folder: Path) -> Trial:
        """The trial with its score, or with the reason why it has none.

        A folder that cannot be written, or data that cannot be read any more, is not the plan's fault.
        """
        begin = self.clock()
        kept = best(self.study.trials(), self.allowed)
        rules = Rules(
            allowed=self.allowed,
            alpha=alpha_of(trial.number, self.request.error_rate),
            number=trial.number,
            improves=kept is None or not kept.meets(self.allowed) or trial.objective < kept.objective,
            limit=trial.max_samples,
        )
        try:
            outcome = self.bench.carry_out(trial.plan, folder, rules, partial(self.progress, f"trial {trial.number}"))
        except (RunError, DataError):
            raise
        except (AutoquantError, MemoryError) as error:
            reason = str(error) or "out of memory; a smaller --batch-size may help"
            at_fault = self._at_fault(error, trial.plan) if isinstance(error, AutoquantError) else ""
            return replace(trial, failure=reason, at_fault=at_fault, seconds={"failed": self.clock() - begin})
        found = outcome.streamed
        sound = all(map(math.isfinite, found.losses))
        return replace(
            trial,
            state=State.STOPPED if found.score is None else State.DONE,
            score=None if found.score is None else found.score.value,
            drop=found.drop,
            low=found.low,
            high=found.high,
            within=found.within,
            divergences=found.losses if sound else (),
            divergence_samples=found.loss_samples,
            samples=found.samples,
            seconds=outcome.seconds,
            failure="",
            qdq_ops=outcome.boundaries,
        )

    def _at_fault(self, error: AutoquantError, plan: Plan) -> str:
        """The layer that an error names, if that may be left in float."""
        name = layer_at_fault(error, plan)
        return name if self.space.may_be_float(name) else ""

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell the listener how far something is."""
        self.listener(Progress(what, done, total))

    def keep_best(self, among: Sequence[Trial] | None = None) -> Trial | None:
        """Point `best` at the best trial so far, see that its model is there, then delete those of the others."""
        kept = best(self.study.trials() if among is None else among, self.allowed)
        builder = self.bench.builder
        name = builder.target.file_name(builder.model.name)
        if kept is not None:
            self.folder.point_best(kept.number)
            model = self.folder.best / name
            if not all(file.is_file() for file in builder.target.files(model)):  # lost, but it can be made again
                builder.make(kept.plan, model)
        if not self.request.keep_all_models:
            names = [file.name for file in builder.target.files(Path(name))]
            self.folder.delete_models(names, keep=kept.number if kept else None)
        return kept
