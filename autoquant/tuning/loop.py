"""The loop: propose, carry out, keep the best, until the target or the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from autoquant.calibration.plan import Plan
from autoquant.errors import TrialError
from autoquant.files import write_text
from autoquant.tuning.blame import costly_layers
from autoquant.tuning.events import Finished, Listener, Progress, Resumed, TrialEnded, TrialStarted
from autoquant.tuning.request import SearchRequest
from autoquant.tuning.result import INTERRUPTED, SearchResult, State, Trial, Verdict, best
from autoquant.tuning.run_folder import RunFolder
from autoquant.tuning.score_json import score_text
from autoquant.tuning.space import SearchSpace
from autoquant.tuning.study import Proposal, Study
from autoquant.tuning.tolerance import drop, within, worst_allowed
from autoquant.tuning.workbench import Workbench

FAILURES = 10
"""So many failures in a row end a search: something is wrong that another plan will not cure."""


@dataclass(frozen=True)
class Loop:
    """The trials of one run. `allowed` is the largest drop within tolerance, in units of the metric."""

    bench: Workbench
    space: SearchSpace
    study: Study
    folder: RunFolder
    request: SearchRequest
    allowed: float
    listener: Listener
    clock: Callable[[], float]

    def run(self) -> SearchResult:
        """Go on until there is a reason to end; an interruption is one, and leaves everything in order."""
        before = self.study.trials()
        earlier = sum(sum(trial.seconds.values()) for trial in before)
        begin = self.clock()

        def used() -> float:
            return earlier + self.clock() - begin

        kept = self._keep_best()
        if before:
            self.listener(Resumed(before, kept, earlier))
        try:
            ended = self._trials(used)
        except KeyboardInterrupt:
            self.study.cut_off()
            ended = INTERRUPTED
        result = self._result(ended, used())
        self.listener(Finished(result))
        return result

    def _trials(self, used: Callable[[], float]) -> str:
        failures = 0
        while True:
            reason = self._enough(used())
            if reason:
                return reason
            proposal = self.study.propose()
            if proposal is None:
                return "nothing new was proposed any more"
            trial = self._carry_out(proposal)
            self.study.finish(trial)
            kept = self._keep_best()
            self.listener(TrialEnded(trial, kept, len(self.study.trials()), used()))
            failures = failures + 1 if trial.state is State.FAILED else 0
            if failures == FAILURES:
                return f"{FAILURES} trials failed in a row, the last one with: {trial.reason}"

    def _enough(self, seconds: float) -> str:
        """Why the search ends now; empty when it goes on."""
        trials = self.study.trials()
        kept = best(trials, self.allowed)
        if kept is not None and kept.drop is not None and within(kept.drop, self.allowed):
            if kept.int8_layers == kept.layers - len(self.space.always_float):
                return "within tolerance with every layer in INT8 that may be: nothing better is left to try"
            if self.request.stop_on_target:
                return "stopped at the first trial within tolerance"
        if len(trials) >= self.request.max_trials:
            return f"all {self.request.max_trials} trials are used"
        if seconds >= self.request.timeout:
            return f"the time of {self.request.timeout:g} s is used"
        return ""

    def _carry_out(self, proposal: Proposal) -> Trial:
        plan = proposal.plan
        trial = Trial(
            number=proposal.number,
            state=State.FAILED,
            plan=plan,
            why=proposal.why,
            int8_layers=len(plan.int8),
            int8_share=self.bench.builder.workload.int8_share(plan),
            reason="not carried out",
        )
        self.listener(TrialStarted(trial.number, trial.why, trial.int8_layers, trial.int8_share))
        folder = self.folder.make_trial(trial.number)
        progress = partial(self._progress, f"trial {trial.number}")
        try:
            outcome = self.bench.carry_out(plan, folder, progress)
        except TrialError as error:
            trial = replace(trial, reason=str(error))
        except MemoryError:
            trial = replace(trial, reason="out of memory; a smaller --batch-size may help")
        else:
            score, metric = outcome.score, self.bench.metric
            loss = drop(self.bench.baseline.score.value, score.value, higher_is_better=metric.higher_is_better)
            trial = replace(
                trial,
                state=State.DONE,
                score=score.value,
                drop=loss,
                samples=score.samples,
                seconds=outcome.seconds,
                reason="",
            )
        self._write_score(trial)
        return trial

    def _write_score(self, trial: Trial) -> None:
        text = score_text(
            trial,
            metric=self.bench.metric.name,
            baseline=self.bench.baseline.score.value,
            allowed=self.allowed,
            engine=self.bench.engine.name,
        )
        write_text(self.folder.trial(trial.number) / "score.json", text)

    def _progress(self, what: str, done: int, total: int) -> None:
        self.listener(Progress(what, done, total))

    def _keep_best(self) -> Trial | None:
        """Point `best` at the best trial so far, then delete the models of the others."""
        kept = best(self.study.trials(), self.allowed)
        if kept is not None:
            self.folder.point_best(kept.number)
        if not self.request.keep_all_models:
            self.folder.delete_models(keep=kept.number if kept else None)
        return kept

    def _result(self, ended: str, seconds: float) -> SearchResult:
        bench, trials = self.bench, self.study.trials()
        kept = best(trials, self.allowed)
        met = kept is not None and kept.drop is not None and within(kept.drop, self.allowed)
        baseline = bench.baseline.score.value
        builder = bench.builder
        return SearchResult(
            verdict=Verdict.MET if met else Verdict.MISSED,
            metric=bench.metric.name,
            baseline=baseline,
            tolerance=self.allowed,
            limit=worst_allowed(baseline, self.allowed, higher_is_better=bench.metric.higher_is_better),
            best=kept,
            trials=trials,
            layers=len(builder.workload.layers),
            seconds=seconds,
            model=self.folder.best / builder.target.file_name(builder.model.name) if kept else None,
            run=self.folder.path,
            ended=ended,
            costly=self._costly(kept.plan) if kept and not met and ended != INTERRUPTED else (),
        )

    def _costly(self, plan: Plan) -> tuple[tuple[str, float], ...]:
        """The layers that cost the most; a user who cannot wait for that goes without."""
        try:
            return costly_layers(self.bench, plan, partial(self._progress, "costly layers"))
        except KeyboardInterrupt:
            return ()
