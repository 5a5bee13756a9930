"""The loop: propose, carry out, keep the best, until the target or the budget."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoquant.calibration.plan import Plan
from autoquant.errors import AutoquantError, DataError, RunError, TrialError
from autoquant.evaluation.latency import Latency
from autoquant.evaluation.sequential import alpha_of
from autoquant.evaluation.streaming import Rules
from autoquant.evaluation.tolerance import drop, within, worst_allowed
from autoquant.files import write_text
from autoquant.tuning.blame import costly_layers, layer_at_fault
from autoquant.tuning.certificate import Verdict
from autoquant.tuning.choices import LATENCY
from autoquant.tuning.events import Listener, Progress, Resumed, TrialEnded, TrialStarted, Warned
from autoquant.tuning.objective import Objective
from autoquant.tuning.request import NOTHING, SearchRequest
from autoquant.tuning.result import Ended, SearchResult, State, Trial, best, count_layers
from autoquant.tuning.run_folder import PASSING, RunFolder
from autoquant.tuning.run_latency import run_latency
from autoquant.tuning.score_json import score_text
from autoquant.tuning.space import SearchSpace
from autoquant.tuning.study import Proposal, Study
from autoquant.tuning.workbench import Workbench, score_whole

FAILURES = 10
"""So many failures in a row that no layer explains end a search: another plan will not cure what is wrong."""
CLOSEST = 3
"""So many of the trials that come closest to a tolerance that is missed are scored on everything, at most."""


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

    def run(self) -> SearchResult:
        """Go on until there is a reason to end; an interruption is one, and leaves everything in order."""
        before = self.study.trials()
        earlier = sum(sum(trial.seconds.values()) for trial in before)

        def used() -> float:
            return earlier + self.clock() - self.begin

        kept = self._keep_best()
        if before:
            self.listener(Resumed(before, kept, earlier))
        try:
            ended = self._trials(used)
        except KeyboardInterrupt:
            self.study.cut_off()
            self._keep_best()  # it may have been interrupted in that
            ended = Ended.INTERRUPTED
        except AutoquantError:
            self.study.cut_off()
            raise
        return self._result(ended, used())

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
            kept = self._keep_best()
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
            int8_layers=count_layers(plan.int8),
            int8_share=self.bench.builder.workload.int8_share(plan),
            objective=self.objective(plan),
            reason="not carried out",
            phase=proposal.phase,
            limit=proposal.limit,
        )
        self.listener(TrialStarted(trial.number, trial.why, trial.int8_layers, trial.int8_share))
        trial = self._measured(trial, self.folder.make_trial(trial.number))
        self._write_score(trial)
        return trial

    def _write_score(self, trial: Trial) -> None:
        text = score_text(
            trial,
            metric=self.bench.metric.name,
            baseline=self.bench.part.score.value,
            allowed=self.allowed,
            engine=self.bench.engine.name,
            target=self.bench.builder.target.name,
            objective=self.objective.name,
        )
        write_text(self.folder.trial(trial.number) / "score.json", text)

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
            limit=trial.limit,
        )
        try:
            outcome = self.bench.carry_out(trial.plan, folder, rules, partial(self._progress, f"trial {trial.number}"))
        except (RunError, DataError):
            raise
        except (AutoquantError, MemoryError) as error:
            reason = str(error) or "out of memory; a smaller --batch-size may help"
            at_fault = self._at_fault(error, trial.plan) if isinstance(error, AutoquantError) else ""
            return replace(trial, reason=reason, at_fault=at_fault, seconds={"failed": self.clock() - begin})
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
            loss=found.losses[-1] if sound else None,
            loss_samples=found.loss_samples,
            losses=found.losses if sound else (),
            samples=found.samples,
            seconds=outcome.seconds,
            reason="",
            boundaries=outcome.boundaries,
        )

    def _at_fault(self, error: AutoquantError, plan: Plan) -> str:
        """The layer that an error names, if that may be left in float."""
        name = layer_at_fault(error, plan)
        return name if self.space.may_be_float(name) else ""

    def _progress(self, what: str, done: int, total: int) -> None:
        self.listener(Progress(what, done, total))

    def _keep_best(self, among: Sequence[Trial] | None = None) -> Trial | None:
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

    def _result(self, ended: Ended, seconds: float) -> SearchResult:
        bench, kept = self.bench, best(self.study.trials(), self.allowed)
        if kept is not None and ended is not Ended.INTERRUPTED:
            kept = self._scored_whole(kept)
        trials = self.study.trials()
        met = kept is not None and kept.meets(self.allowed)
        baseline = bench.part.score.value
        builder = bench.builder
        model = self.folder.best / builder.target.file_name(builder.model.name) if kept else None
        more = ended is not Ended.INTERRUPTED
        return SearchResult(
            verdict=Verdict.MET if met else Verdict.MISSED,
            metric=bench.metric.name,
            baseline=baseline,
            tolerance=self.allowed,
            limit=worst_allowed(baseline, self.allowed, higher_is_better=bench.metric.higher_is_better),
            best=kept,
            trials=trials,
            layers=builder.workload.size,
            seconds=seconds,
            model=model,
            run=self.folder.path,
            ended=ended,
            unit=builder.workload.unit,
            objective=self.objective.name,
            space=str(self.request.space),
            search_samples=len(bench.part),
            declined=self.request.certify == NOTHING,
            costly=self.costly(kept.plan) if kept and not met and more else (),
            latency=self._latency(model) if model and more else None,
        )

    def _scored_whole(self, kept: Trial) -> Trial:
        """The best trial, scored on everything: where it was stopped early it may be another that is, then."""
        for _ in range(CLOSEST):
            if kept.state is not State.STOPPED:
                break
            whole = self._whole(kept)
            if whole is None:
                return kept
            self.study.correct(whole)
            found = self._keep_best()
            assert found is not None
            kept = found
        if kept.state is State.STOPPED:
            done = [trial for trial in self.study.trials() if trial.state is State.DONE]
            kept = self._keep_best(done) or kept
        return kept

    def _whole(self, trial: Trial) -> Trial | None:
        """A trial that was stopped early, with its score on everything; None where the model cannot be scored so."""
        bench = self.bench
        name = bench.builder.target.file_name(bench.builder.model.name)
        try:
            runner = bench.engine.open_file(self.folder.best / name, bench.builder.model.program)
            score = score_whole(
                runner,
                bench.part,
                batch_size=bench.batch_size,
                on_progress=partial(self._progress, f"trial {trial.number}, all samples"),
            )
        except TrialError as error:
            self.listener(Warned(f"the best model cannot be scored on all samples: {error}"))
            return None
        loss = drop(bench.part.score.value, score.value, higher_is_better=bench.metric.higher_is_better)
        met = within(loss, self.allowed)
        whole = replace(
            trial,
            state=State.DONE,
            score=score.value,
            drop=loss,
            low=loss,
            high=loss,
            within=met,
            samples=trial.samples + score.samples,
        )
        self._write_score(whole)
        return whole

    def costly(self, plan: Plan) -> tuple[tuple[str, float], ...]:
        """The layers that cost the most. The result is known already: nothing that happens here may lose it."""
        try:
            with tempfile.TemporaryDirectory(dir=self.folder.path, prefix=PASSING) as folder:
                return costly_layers(self.bench, plan, Path(folder), partial(self._progress, "costly layers"))
        except KeyboardInterrupt:
            return ()
        except (AutoquantError, OSError, MemoryError) as error:
            self.listener(Warned(f"the layers that cost the most could not be found: {error}"))
            return ()

    def _latency(self, model: Path) -> Latency | None:
        """The latency of the float model and the best; as little as above may it lose the result."""
        try:
            return run_latency(self.bench.builder.model, self.bench.part.data, model)
        except KeyboardInterrupt:
            return None
        except (AutoquantError, OSError, MemoryError) as error:
            self.listener(Warned(f"latency could not be measured: {error}"))
            return None
