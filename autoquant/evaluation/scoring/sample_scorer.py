"""Scoring a model sample by sample, paired with the FP32 model, until it is decided.

First comes the probe set, the same samples for all trials, on which outputs are compared with FP32's; then the samples
in an order of the plan's own, in which those that are likely to change come sooner (stream_order.py). A test that may
be stopped at any time (sequential.py) says when it is proven that the drop on all samples is within tolerance, or not.

A small tolerance takes nearly all samples to prove anything, though almost all that change are those of the smallest
FP32 margin, the low-margin set. So that comes next where the test has not decided soon, in steps: a model that drops
more on what was scored by then than all samples may, even if nothing else is lost, is screened out, undecided.

Where the values of a metric have no bounds (PSNR), nothing holds for few samples; an asymptotic test takes the place of
that which may be stopped at any time (asymptotic.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.engines.engine import Engine, Runner, bounded_batch, run_batch
from autoquant.evaluation.metrics.divergence import divergences, have_probabilities
from autoquant.evaluation.metrics.metric import Metric, OnProgress, Score, score_of
from autoquant.evaluation.scoring.changes import SampleClasses, sample_changes
from autoquant.evaluation.scoring.outputs import OutputCache, samples_of
from autoquant.evaluation.scoring.reference import Reference
from autoquant.evaluation.scoring.rows import Rows
from autoquant.evaluation.scoring.stopping import (
    EARLY_STOPPING,
    FIRST_CHECK,
    FIRST_PROBES,
    GROWTH,
    HARDLY,
    LEEWAY,
    LOW_MARGIN_SHARES,
    PROBE_SIZES,
    SCREEN_AFTER,
    FullScore,
    SequentialScore,
    StoppingRules,
)
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.evaluation.statistics.asymptotic import FEWEST, AsymptoticTest, checks_of
from autoquant.evaluation.statistics.sequential import Decision, SequentialTest
from autoquant.evaluation.statistics.stream_order import check_points, stream_order
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.model.model import Program
from autoquant.quiet import no_progress
from autoquant.targets.base import OnStep


@dataclass(frozen=True, eq=False)
class SampleScorer:
    """Scores the files of all trials on the same samples.

    `probe_set` are places of samples in the subset, and `probe_outputs` gives the FP32 model's outputs for them that
    are scored, by their rank among these places; `probabilities` says which of them are that. `seed` is that of the
    plans' orders.
    """

    engine: Engine
    program: Program
    subset: EvaluationSubset
    probe_set: Array
    probe_outputs: Reference
    probabilities: Mapping[str, bool]
    seed: int
    batch_size: int

    @classmethod
    def of(
        cls,
        engine: Engine,
        program: Program,
        subset: EvaluationSubset,
        *,
        seed: int,
        batch_size: int,
        folder: Path | None = None,
    ) -> SampleScorer:
        """Draw the probe set, and run the FP32 model on it; `folder` is for outputs. Raises as `evaluate`."""
        probe_set = stream_order(len(subset), margins=subset.margins, seed=(seed, 0)).order[: PROBE_SIZES[-1]]
        outputs, probabilities = OutputCache(folder), dict[str, bool]()
        data = subset.data.subset(np.sort(probe_set))
        with closing(engine.open_graph(program)) as runner:
            for batch in data.batches(bounded_batch(batch_size, subset.baseline.sample_bytes, data.inputs)):
                scored = subset.metric.scored(run_batch(runner, batch))
                for name, probable in have_probabilities(scored, subset.metric).items():
                    probabilities[name] = probabilities.get(name, True) and probable
                outputs.add(scored)
        reference = Reference(subset.metric.scored, outputs, partial(engine.open_graph, program))
        return cls(engine, program, subset, probe_set, reference, probabilities, seed, batch_size)

    @property
    def metric(self) -> Metric:
        """What scores the outputs."""
        return self.subset.metric

    @property
    def decides(self) -> bool:
        """Whether some samples can tell about all: the score is the mean of values, which have bounds or are many."""
        return self.metric.per_sample and (self.metric.bounds is not None or len(self.subset) > FEWEST)

    @property
    def asymptotic(self) -> bool:
        """Whether what some samples tell holds for many of them, and only nearly: their values have no bounds."""
        return self.decides and self.metric.bounds is None

    @property
    def early_stopping(self) -> str:
        """By what trials are stopped early, one of EARLY_STOPPING."""
        always, nearly, never = EARLY_STOPPING
        return (nearly if self.asymptotic else always) if self.decides else never

    @cached_property
    def low_margin_set(self) -> Array:
        """Places of the samples of the smallest FP32 margin, which screen a trial; none where there are no margins.

        In that order; `low_margin_steps` says after how many of them.
        """
        margins = self.subset.margins
        if margins is None:
            return np.zeros(0, np.intp)
        return np.argsort(margins, kind="stable")[: self.low_margin_steps[-1]]

    @property
    def low_margin_steps(self) -> tuple[int, ...]:
        """The numbers of samples that LOW_MARGIN_SHARES are."""
        return tuple(math.ceil(share * len(self.subset)) for share in LOW_MARGIN_SHARES)

    def open_float(self) -> Runner:
        """Open the FP32 model."""
        return self.engine.open_graph(self.program)

    def divergences(self, places: Array, batch: Batch, outputs: Outputs) -> Array:
        """How far the outputs of some of the probe set, by ascending place in the subset, are from FP32's."""
        found = np.empty(len(places))
        for part, plain in self.probe_outputs.parts(np.searchsorted(np.sort(self.probe_set), places), batch):
            found[part] = divergences(plain, samples_of(outputs, part), self.metric, self.probabilities)
        return found

    def score(
        self,
        path: Path,
        rules: StoppingRules,
        on_step: OnStep = no_progress,
        on_progress: OnProgress = no_progress,
    ) -> SequentialScore:
        """Score a file until the rules stop it. Calls `on_step` when load and score are done. Raises as `measure`."""
        with closing(self.engine.open_file(path, self.program)) as runner:
            on_step("load")
            score = _TrialScoring(self, runner, on_progress).run(rules)
        on_step("score")
        return score

    def score_all(
        self, path: Path, *, engine: Engine | None = None, on_progress: OnProgress = no_progress
    ) -> FullScore:
        """Score a file on all samples, on another engine where one is given. Raises TrialError."""
        classes = SampleClasses(self.metric, len(self.subset))
        with closing((engine or self.engine).open_file(path, self.program)) as runner:
            score = self.subset.evaluate(
                runner,
                batch_size=self.batch_size,
                on_progress=on_progress,
                on_outputs=lambda own, _, outputs: classes.put(own, outputs),
            )
        return FullScore(score, sample_changes(self.subset, score.rows, classes.array))


class _TrialScoring:
    """One trial, and the samples that it was scored on so far, each once: their rows, by place in the subset."""

    def __init__(self, scorer: SampleScorer, runner: Runner, on_progress: OnProgress) -> None:
        self._scorer = scorer
        self._subset = scorer.subset
        self._runner = runner
        self._on_progress = on_progress
        self._done = np.zeros(len(self._subset), bool)
        self._rows = Rows(scorer.metric, len(self._subset))
        self._classes = SampleClasses(scorer.metric, len(self._subset))
        self._divergences = np.full(len(self._subset), np.nan)  # of the probe set, as far as it was scored

    def run(self, rules: StoppingRules) -> SequentialScore:
        """Score until the rules stop it."""
        scorer, total = self._scorer, len(self._subset)
        if self._subset.data.in_passes and (rules.max_samples is None or rules.max_samples >= total):
            self._measure(np.arange(total))  # in one pass: the next samples would cost another
            return self._exact(rules)
        self._measure(scorer.probe_set[: rules.max_samples or FIRST_PROBES])
        if rules.max_samples is not None and rules.max_samples < total:
            return self._result(None, None, None, None)
        test = self._decide(rules) if scorer.decides and rules.max_samples is None else None
        if test is None or (test.decision is Decision.WITHIN and rules.improves):
            self._measure(np.arange(total))
        if test is None or self._done.all():
            return self._exact(rules)
        interval = test.interval()
        if test.decision is not Decision.UNDECIDED:
            return self._result(test.estimate, interval.low, interval.high, test.decision is Decision.WITHIN)
        least = self._least_drop()
        low, high = max(min(interval.low, self._drop()), least), max(interval.high, self._drop())
        return self._result(self._drop(), low, high, None if within(least, rules.max_drop) else False)

    def _decide(self, rules: StoppingRules) -> SequentialTest | AsymptoticTest:
        """Score in the plan's own order until a test decides, the trial is screened out, or no sample is left."""
        return self._asymptotic(rules) if self._scorer.asymptotic else self._sequential(rules)

    def _sequential(self, rules: StoppingRules) -> SequentialTest:
        subset, total = self._subset, len(self._subset)
        order = stream_order(total, margins=subset.margins, seed=(self._scorer.seed, rules.order))
        low, high = self._scorer.metric.bounds or (-math.inf, math.inf)
        test = SequentialTest(rules.max_drop, bound=(high - low) * order.largest, alpha=rules.alpha)
        added, screened = 0, not len(self._scorer.low_margin_set)
        for stop in check_points(total, first=FIRST_CHECK, growth=GROWTH):
            self._measure(order.order[:stop])
            usable = order.usable(stop)
            test.add(order.values(subset.drops(self._rows.array, np.arange(total)), added, usable))
            added = usable
            if test.decision is not Decision.UNDECIDED:
                break
            lost = self._drop() * total / (high - low)
            if not screened and stop >= SCREEN_AFTER[lost > HARDLY]:
                screened = True
                if self._screened_out(rules.max_drop):
                    break
        return test

    def _asymptotic(self, rules: StoppingRules) -> AsymptoticTest:
        """The same for values without bounds: each sample once, every one as likely as any other to come next."""
        total = len(self._subset)
        order = stream_order(total, margins=None, seed=(self._scorer.seed, rules.order)).order
        stops = list(check_points(total, first=FIRST_CHECK, growth=GROWTH))
        test = AsymptoticTest(rules.max_drop, population=total, checks=checks_of(stops, total), alpha=rules.alpha)
        for start, stop in pairwise([0, *stops]):
            self._measure(order[:stop])
            places = order[start:stop]
            drops = self._subset.drops(self._rows.array[places], places)
            if not np.isfinite(drops).all():  # then the score is not, either, which is told once all are scored
                self._measure(order)
                break
            test.add(drops)
            if test.decision is not Decision.UNDECIDED:
                break
        return test

    def _screened_out(self, max_drop: float) -> bool:
        """Score on more and more of the low-margin set, until more is lost there than all samples may lose."""
        for step, stop in enumerate(self._scorer.low_margin_steps):
            self._measure(self._scorer.low_margin_set[:stop])
            if not within(self._drop(), max_drop if step else (1.0 + LEEWAY) * max_drop):
                return True
        return False

    def _measure(self, places: Array) -> None:
        """Score those of the samples that were not scored yet."""
        new = np.sort(places[~self._done[places]])
        if not len(new):
            return
        before, total = int(self._done.sum()), len(self._done)
        probes = np.isin(new, self._scorer.probe_set)

        def record(at: slice, batch: Batch, outputs: Outputs) -> None:
            self._classes.put(new[at], outputs)
            own = np.flatnonzero(probes[at])
            if len(own):
                found = self._scorer.divergences(new[at][own], batch.part(own), samples_of(outputs, own))
                self._divergences[new[at][own]] = found

        self._subset.measure(
            self._runner,
            new,
            batch_size=self._scorer.batch_size,
            on_progress=lambda done, _: self._on_progress(before + done, total),
            on_outputs=record,
            into=self._rows,
        )
        self._done[new] = True

    def _drop(self) -> float:
        """The drop if no sample changes but those that were scored."""
        places = np.flatnonzero(self._done)
        return float(self._subset.drops(self._rows.array[places], places).sum() / len(self._done))

    def _least_drop(self) -> float:
        """What the drop is at least: if all samples that were not scored become as good as the metric has it."""
        metric, places = self._scorer.metric, np.flatnonzero(~self._done)
        low, high = metric.bounds or (-math.inf, math.inf)
        best = np.full(len(places), high if metric.higher_is_better else low)
        return self._drop() + float(self._subset.drops(best, places).sum() / len(self._done))

    def _exact(self, rules: StoppingRules) -> SequentialScore:
        metric = self._scorer.metric
        score = score_of(metric, self._rows.array)
        drop = drop_from(self._subset.score.value, score.value, higher_is_better=metric.higher_is_better)
        return self._result(drop, drop, drop, within(drop, rules.max_drop), score)

    def _result(
        self, drop: float | None, low: float | None, high: float | None, within: bool | None, score: Score | None = None
    ) -> SequentialScore:
        """The result, with mean divergences over the first of the probe set, as far as it was scored on them."""
        probe_set = self._scorer.probe_set
        seen = probe_set[: len(list(takewhile(self._done.__getitem__, probe_set)))]
        each = self._divergences[seen]
        sizes = [size for size in PROBE_SIZES if size <= len(each)]
        if len(each) == len(probe_set) and len(each) not in sizes:
            sizes.append(len(each))
        means = tuple(float(each[:size].mean()) for size in sizes)
        drops: tuple[float, ...] = ()
        if self._scorer.metric.per_sample and self._scorer.metric.bounds is None:
            lost = self._subset.drops(self._rows.array[seen], seen)
            drops = tuple(float(lost[:size].mean()) for size in sizes)
        changes = None if score is None else sample_changes(self._subset, score.rows, self._classes.array)
        return SequentialScore(int(self._done.sum()), score, drop, low, high, within, means, sizes[-1], changes, drops)
