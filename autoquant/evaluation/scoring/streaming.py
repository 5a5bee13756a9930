"""Scoring a model sample by sample, for as long as its fate is open.

Each sample is paired with what the FP32 model made of it. First come the probed samples, the same for all trials, on
which outputs are compared with FP32's; then the samples in an order of the trial's own, in which those that are likely
to change come sooner (stream_order.py). A test that may look as often as it likes (sequential.py) says when it is
proven that the model is within tolerance on all samples, or that it is not.

A small tolerance takes nearly all samples to prove anything, though almost all that change are those of the smallest
FP32 margin. So these are looked at next, where the test has not decided soon: if what was seen then costs more than is
allowed, even if nothing else is lost, the model is set aside, undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import numpy as np

from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.engines.engine import Runner, run_batch
from autoquant.evaluation.metrics.divergence import divergence
from autoquant.evaluation.scoring.evaluator import Progress, Score, evaluate, score_of
from autoquant.evaluation.scoring.subset import Part
from autoquant.evaluation.statistics.sequential import Decision, SequentialTest
from autoquant.evaluation.statistics.stream_order import stream_order
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.quiet import no_progress

PROBED = 256
"""Samples whose outputs can be compared with the FP32 model's."""
RUNGS = (64, 128, PROBED)
"""How many of them a trial sees at least, and after how many their mean is told, so that trials can be compared."""
LOOK = 32
"""Samples of a trial's own order until the first look at what came out."""
GROWTH = 1.25
"""How many times as many are seen until the next one."""
SOON = 128
"""Samples of a trial's own order that show what is hopeless; what is undecided then is screened."""
SCREENED = 0.1
"""The share of all samples that screens a trial: those of the smallest FP32 margin."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A part of the data as trials see it.

    `probed` are places of samples in it, and `probe` the FP32 model's first outputs for them, one array a sample.
    """

    part: Part
    seed: int
    probed: Array
    probe: Sequence[Array]

    @property
    def decides(self) -> bool:
        """Whether some samples can tell about all: the score is the mean of values that have bounds."""
        return self.part.metric.per_sample and self.part.metric.bounds is not None

    @cached_property
    def screened(self) -> Array:
        """Places of the samples that screen a trial; none where there are no margins."""
        margins = self.part.margins
        if margins is None:
            return np.zeros(0, np.intp)
        return np.argsort(margins, kind="stable")[: math.ceil(SCREENED * len(margins))]

    @property
    def bound(self) -> float:
        """The largest difference of two rows."""
        bounds = self.part.metric.bounds
        assert bounds is not None
        return bounds[1] - bounds[0]

    def losses(self, outputs: Sequence[Array]) -> Array:
        """The divergence from FP32 of a model's first outputs for as many of the probed samples, from the first on."""
        of_classes, plain = self.part.metric.of_classes, self.probe[: len(outputs)]
        if len({array.shape for array in plain}) == 1:
            return divergence(np.stack(plain), np.stack(outputs), of_classes=of_classes)
        each = [divergence(p[None], q[None], of_classes=of_classes) for p, q in zip(plain, outputs, strict=True)]
        return np.concatenate(each)


def stream_of(runner: Runner, part: Part, *, seed: int, batch_size: int) -> Stream:
    """The stream of a part; the opened FP32 model is run on the probed samples. Raises as `run_batch`."""
    # As trial 0 begins; none can have been chosen by them before it.
    probed = stream_order(len(part), margins=part.margins, seed=(seed, 0)).order[:PROBED]
    ascending = np.sort(probed)
    heard = Heard(runner, np.ones(len(probed), bool))
    for batch in part.data.subset(ascending).batches(batch_size):
        run_batch(heard, batch)
    return Stream(part, seed, probed, [heard.outputs[place] for place in np.searchsorted(ascending, probed)])


@dataclass(frozen=True, slots=True)
class Rules:
    """When to stop.

    `allowed` is the largest drop within tolerance, `alpha` the probability with which the test may err, `number` the
    trial's own, from which its order is drawn. A model that is proven within tolerance is scored on everything only
    where it `improves` on the best so far. With a `limit` nothing is decided: so many of the probed samples are seen,
    or everything where it is as many as there are.
    """

    allowed: float
    alpha: float
    number: int = 0
    improves: bool = True
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came of it.

    `score` is there where all samples were seen; `drop` is exact then, else the estimate of it, and `low` and `high`
    are the ends of its interval; all None where nothing is known. `within` says whether the drop is within tolerance,
    None where that is open: without a limit, where the model was set aside. `losses` are mean divergences from FP32
    (divergence.py) over the first of the probed samples, for each of RUNGS as far as they were seen, the last one over
    `loss_samples`.
    """

    samples: int
    score: Score | None
    drop: float | None
    low: float | None
    high: float | None
    within: bool | None
    losses: tuple[float, ...]
    loss_samples: int


def streamed(
    runner: Runner, stream: Stream, rules: Rules, *, batch_size: int, on_progress: Progress = no_progress
) -> Streamed:
    """Score an opened model until the rules stop it, or on everything. Raises as `evaluate`."""
    scoring = _Scoring(runner, stream, batch_size, on_progress)
    scoring.see(stream.probed[: rules.limit or RUNGS[0]])
    everything = rules.limit is not None and rules.limit >= len(stream.part)
    if rules.limit is not None and not everything:
        return Streamed(scoring.samples, None, None, None, None, None, *scoring.losses())
    test = _decide(scoring, rules) if stream.decides and not everything else None
    if test is None or (test.decision is Decision.WITHIN and rules.improves):
        scoring.see(np.arange(len(stream.part)))
    return _outcome(scoring, rules, test)


def scored_at(
    runner: Runner, part: Part, places: Array, *, batch_size: int, on_progress: Progress = no_progress
) -> Score:
    """Score an opened model on samples of a part, by ascending place. Raises as `evaluate`."""
    data = part.data if len(places) == len(part) else part.data.subset(places)

    def reference(done: slice) -> Outputs:
        return part.reference(places[done])

    return evaluate(
        runner,
        data,
        part.metric,
        batch_size=batch_size,
        reference=reference if part.metric.needs_reference else None,
        on_progress=on_progress,
    )


def score_all(runner: Runner, part: Part, *, batch_size: int, on_progress: Progress = no_progress) -> Score:
    """Score an opened model on all samples of a part. Raises as `evaluate`."""
    return scored_at(runner, part, np.arange(len(part)), batch_size=batch_size, on_progress=on_progress)


class Heard:
    """A runner whose first outputs for some samples are kept, one array a sample: `kept` says for each, in order."""

    def __init__(self, runner: Runner, kept: Array) -> None:
        self._runner = runner
        self._kept = kept
        self._done = 0
        self.outputs: list[Array] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one batch."""
        found = self._runner(inputs)
        first = next(iter(found.values()))
        kept = np.flatnonzero(self._kept[self._done : self._done + len(first)])
        self.outputs += [first[place].copy() for place in kept]  # a view would hold the whole batch
        self._done += len(first)
        return found

    def close(self) -> None:
        """Give back the memory of the runner."""
        self._runner.close()


class _Scoring:
    """The rows of the samples that were seen so far, each seen once."""

    def __init__(self, runner: Runner, stream: Stream, batch_size: int, on_progress: Progress) -> None:
        self.stream = stream
        self.seen = np.zeros(len(stream.part), bool)
        self.rows = np.zeros(0)
        self._outputs: dict[int, Array] = {}
        self._runner = runner
        self._batch_size = batch_size
        self._on_progress = on_progress

    @property
    def samples(self) -> int:
        """How many were seen."""
        return int(self.seen.sum())

    @property
    def cost(self) -> float:
        """The drop if no sample changes but those that were seen."""
        places = np.flatnonzero(self.seen)
        return float(self.stream.part.losses(self.rows[places], places).sum() / len(self.seen))

    @property
    def least(self) -> float:
        """What the drop is at least: if all samples that were not seen become as good as the metric has it."""
        part, bounds = self.stream.part, self.stream.part.metric.bounds
        assert bounds is not None
        places = np.flatnonzero(~self.seen)
        best = np.full(len(places), bounds[1] if part.metric.higher_is_better else bounds[0])
        return self.cost + float(part.losses(best, places).sum() / len(self.seen))

    def losses(self) -> tuple[tuple[float, ...], int]:
        """Mean divergences over the first probed samples, for each of RUNGS that was seen; and the last of these."""
        probed = [int(place) for place in self.stream.probed]
        seen = list(takewhile(lambda place: place in self._outputs, probed))
        each = self.stream.losses([self._outputs[place] for place in seen])
        rungs = [rung for rung in RUNGS if rung <= len(seen)] or [len(seen)]
        return tuple(float(each[:rung].mean()) for rung in rungs), rungs[-1]

    def see(self, places: Array) -> None:
        """See those of the samples that were not seen yet."""
        new = np.sort(places[~self.seen[places]])
        if not len(new):
            return
        before, total = self.samples, len(self.seen)
        kept = np.isin(new, self.stream.probed)
        heard = Heard(self._runner, kept)
        found = scored_at(
            heard,
            self.stream.part,
            new,
            batch_size=self._batch_size,
            on_progress=lambda done, _: self._on_progress(before + done, total),
        )
        if not before:
            self.rows = np.zeros((total, *found.rows.shape[1:]), found.rows.dtype)
        self.rows[new] = found.rows
        self.seen[new] = True
        self._outputs |= dict(zip(new[kept].tolist(), heard.outputs, strict=True))


def _decide(scoring: _Scoring, rules: Rules) -> SequentialTest:
    """See samples in the trial's own order until the test decides, the trial is set aside, or all are seen."""
    stream, total = scoring.stream, len(scoring.stream.part)
    order = stream_order(total, margins=stream.part.margins, seed=(stream.seed, rules.number))
    test = SequentialTest(rules.allowed, bound=stream.bound * order.largest, alpha=rules.alpha)
    fed, passed = 0, False
    for stop in _looks(total):
        scoring.see(order.order[:stop])
        losses = stream.part.losses(scoring.rows, np.arange(total))
        usable = order.usable(stop)
        test.add(order.values(losses, fed, usable))
        fed = usable
        if test.decision is not Decision.UNDECIDED:
            break
        if stop >= SOON and len(stream.screened) and not passed:
            scoring.see(stream.screened)
            passed = within(scoring.cost, rules.allowed)
            if not passed:
                break
    return test


def _looks(total: int) -> Iterator[int]:
    look = LOOK
    while look < total:
        yield look
        look = math.ceil(GROWTH * look)
    yield total


def _outcome(scoring: _Scoring, rules: Rules, test: SequentialTest | None) -> Streamed:
    part = scoring.stream.part
    if scoring.samples == len(part):
        score = score_of(part.metric, [scoring.rows], len(part))
        exact = drop_from(part.score.value, score.value, higher_is_better=part.metric.higher_is_better)
        return Streamed(len(part), score, exact, exact, exact, within(exact, rules.allowed), *scoring.losses())
    assert test is not None
    interval = test.interval()
    if test.decision is Decision.UNDECIDED:
        low, high = max(min(interval.low, scoring.cost), scoring.least), max(interval.high, scoring.cost)
        proven = None if within(scoring.least, rules.allowed) else False
        return Streamed(scoring.samples, None, scoring.cost, low, high, proven, *scoring.losses())
    decided = test.decision is Decision.WITHIN
    return Streamed(scoring.samples, None, test.estimate, interval.low, interval.high, decided, *scoring.losses())
