"""Trials that are scored sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.evaluation.scoring.stopping import (
    FIRST_PROBES,
    GROWTH,
    LOW_MARGIN_SHARES,
    PROBE_SIZES,
    SCREEN_AFTER,
    SequentialScore,
    StoppingRules,
)
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.model import InputSpec
from autoquant.quiet import no_progress

SPEC = InputSpec("x", np.dtype(np.float32), (None, 5))
RNG = np.random.default_rng(11)
COUNT = 2000
X = RNG.normal(size=(COUNT, 5)).astype(np.float32)
WRONG = RNG.random(COUNT) < 0.15
LABELS = np.where(WRONG, (X.argmax(axis=1) + 1) % 5, X.argmax(axis=1))
DATA = open_data((X, LABELS), [SPEC])


class Model:
    """Gives what a function makes of the samples, and counts them."""

    def __init__(self, function: Callable[..., Any] = lambda x: x) -> None:
        self.function = function
        self.seen = 0

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.seen += len(inputs["x"])
        return {"y": self.function(inputs["x"])}

    def close(self) -> None:
        """Nothing to close."""


def flipped(share: float) -> Model:
    """A model that gives another class for this share of the samples, whichever they are."""
    chosen = {x.tobytes() for x in X[np.random.default_rng(1).random(COUNT) < share]}
    return Model(lambda x: np.stack([np.roll(row, 1) if row.tobytes() in chosen else row for row in x]))


@dataclass
class Opens:
    """An engine that opens this model, whatever it is asked for."""

    model: Model
    name: str = "fake"
    version: str = "fake 1"

    def open_graph(self, graph: object, fetches: Sequence[str] | None = None) -> Model:
        return self.model

    def open_file(self, path: Path, graph: object) -> Model:
        return self.model


PROGRAM: Any = None


def scorer(metric: Any = "top1", positions: Array | None = None) -> SampleScorer:
    metric = open_metric(metric)
    baseline = measure_baseline(Model(), DATA, metric, batch_size=50, key="")
    part = DATA if positions is None else DATA.subset(positions)
    subset = EvaluationSubset.of(DATA, metric, baseline, part)
    return SampleScorer.of(Opens(Model()), PROGRAM, subset, seed=3, batch_size=50)


def score(
    model: Model,
    by: SampleScorer | None = None,
    *,
    batch_size: int = 50,
    on_progress: OnProgress = no_progress,
    **rules: Any,
) -> SequentialScore:
    """Score a model, by default on top-1 of all samples; `rules` are StoppingRules other than usual."""
    scoring = replace(by or scorer(), engine=Opens(model), batch_size=batch_size)
    stopping = StoppingRules(**{"max_drop": 0.01, "alpha": 0.03, **rules})
    return scoring.score(Path("model"), stopping, on_progress=on_progress)


def test_a_hopeless_model_is_stopped_after_a_small_part_and_every_sample_is_run_once() -> None:
    model = flipped(0.5)
    found = score(model)
    assert found.within is False
    assert found.score is None
    assert found.low is not None
    assert found.low >= 0.01
    assert FIRST_PROBES <= found.samples == model.seen < COUNT / 4
    assert found.divergence_samples == FIRST_PROBES


def test_one_that_is_within_is_scored_on_everything_where_it_is_the_best() -> None:
    model = flipped(0.0)
    found = score(model)
    assert found.samples == model.seen == COUNT
    assert (found.drop, found.within) == (0.0, True)
    assert found.score is not None
    assert found.score.value == pytest.approx(1 - WRONG.mean(), abs=1e-12)
    assert set(found.divergences) == {0.0}


def test_one_that_is_within_but_no_better_is_stopped_as_soon_as_that_is_proven() -> None:
    model = flipped(0.0)
    found = score(model, improves=False)
    assert found.within is True
    assert found.score is None
    assert found.high is not None
    assert found.high <= 0.01 * (1 + 1e-5)
    assert model.seen == found.samples < COUNT


def test_one_that_cannot_be_decided_is_scored_on_everything_and_exactly() -> None:
    model = flipped(0.012)
    found = score(model, improves=False, alpha=1e-6)
    predicted = model.function(X).argmax(axis=1)
    want = (X.argmax(axis=1) == LABELS).mean() - (predicted == LABELS).mean()
    assert found.samples == model.seen == COUNT
    assert found.drop == found.low == found.high == pytest.approx(want, abs=1e-12)
    assert found.within is bool(want <= 0.01)


def test_max_samples_are_those_of_the_probe_set_the_same_for_all() -> None:
    one, other = scorer(), scorer()
    found = score(flipped(0.3), one, max_samples=128)
    assert found.samples == found.divergence_samples == 128
    assert (found.drop, found.within) == (None, None)
    assert found.divergences == score(flipped(0.3), other, max_samples=128, order=9).divergences
    assert len(found.divergences) == PROBE_SIZES.index(128) + 1
    assert found.divergences[-1] > score(flipped(0.1), one, max_samples=128).divergences[-1] > 0.0
    assert found.probe_drops == ()  # of right and wrong answers few say little


def test_divergences_are_of_as_many_of_the_probe_set_as_were_scored() -> None:
    model = flipped(0.012)
    whole = score(model, improves=False, alpha=1e-6)
    assert whole.divergence_samples == PROBE_SIZES[-1]
    few = score(model, max_samples=PROBE_SIZES[2], batch_size=7)
    assert few.divergences == whole.divergences[:3]
    fewer = scorer(positions=np.arange(100))
    assert score(model, fewer, max_samples=100).divergence_samples == 100  # all of a probe set of another size
    assert len(score(model, fewer, max_samples=100).divergences) == sum(size < 100 for size in PROBE_SIZES) + 1


def test_max_samples_beyond_all_samples_decide() -> None:
    small = scorer(positions=np.arange(0, COUNT, 20))
    found = score(flipped(0.0), small, max_samples=PROBE_SIZES[-1])
    assert (found.samples, found.drop, found.within) == (COUNT // 20, 0.0, True)


def changed_at(places: Array) -> Model:
    """A model that gives another class at these places, wherever the samples are asked for."""
    chosen = {x.tobytes() for x in X[places]}
    return Model(lambda x: np.stack([np.roll(row, 1) if row.tobytes() in chosen else row for row in x]))


TOP = np.sort(X, axis=1)[:, ::-1]
BY_MARGIN = np.argsort(TOP[:, 0] - TOP[:, 1], kind="stable")
RIGHT_BY_MARGIN = BY_MARGIN[~WRONG[BY_MARGIN]]


@pytest.mark.parametrize(("lost", "step"), [(6, 0), (5, 1)])
def test_more_than_max_drop_on_low_margins_alone_is_screened_out(lost: int, step: int) -> None:
    """4 of 2,000 may be lost; a third more at the first step, as some of it may be won back."""
    model = changed_at(RIGHT_BY_MARGIN[:lost])
    found = score(model, max_drop=0.002)
    assert (found.within, found.score) == (None, None)
    assert found.drop == pytest.approx(lost / COUNT, abs=1e-12)
    assert found.drop is not None and found.low is not None and found.high is not None
    assert found.low <= found.drop <= found.high
    steps = [int(share * COUNT) for share in LOW_MARGIN_SHARES]
    own = FIRST_PROBES + int(GROWTH * SCREEN_AFTER[0]) + 1
    assert found.samples == model.seen <= own + steps[step]
    assert step == 0 or found.samples > steps[step - 1] + own
    assert not set(scorer().low_margin_set) - set(BY_MARGIN[: steps[-1]])
    within = score(changed_at(RIGHT_BY_MARGIN[:lost]), max_drop=lost / COUNT)
    assert (within.samples, within.within) == (COUNT, True)
    assert within.drop == pytest.approx(lost / COUNT, abs=1e-12)


def test_where_much_is_lost_at_once_the_test_goes_on() -> None:
    """It is decided before the low-margin set would be scored, on which a plan looks better than it is."""
    model = flipped(0.12)
    found = score(model, max_drop=0.002, alpha=0.05)
    assert found.within is False
    assert found.samples <= FIRST_PROBES + int(GROWTH * SCREEN_AFTER[1])
    assert found.drop is not None and found.drop > 0.05


def test_losses_at_large_margins_are_scored_on_everything() -> None:
    model = changed_at(RIGHT_BY_MARGIN[-5:])
    found = score(model, max_drop=0.002)
    assert (found.samples, found.within) == (COUNT, False)
    assert found.drop == pytest.approx(0.0025, abs=1e-12)


def right(outputs: Array, labels: Array) -> Any:
    return (outputs.argmax(axis=1) == labels).astype(float)


def test_without_margins_nothing_is_screened_out() -> None:
    vars(right)["bounds"] = (0.0, 1.0)
    assert not len(scorer(right).low_margin_set)
    found = score(flipped(0.03), scorer(right), max_drop=0.002, alpha=1e-9)
    assert (found.samples, found.within) == (COUNT, False)


def test_a_drop_that_no_gain_can_offset_is_not_within_tolerance() -> None:
    """FP32 agrees with itself on every sample, so nothing can be won where something is lost."""
    found = score(changed_at(BY_MARGIN[:5]), scorer("agreement"), max_drop=0.002)
    assert (found.within, found.score) == (False, None)
    assert found.low == found.drop == pytest.approx(0.0025, abs=1e-12)


def test_every_plan_has_an_order_of_its_own() -> None:
    seen = [score(flipped(0.06), order=order).samples for order in range(1, 9)]
    assert len(set(seen)) > 1
    again = [score(flipped(0.06), order=order, batch_size=7).samples for order in range(1, 9)]
    assert seen == again  # whatever the size of batches


def test_a_subset_has_the_score_of_its_own_samples() -> None:
    positions = np.sort(RNG.permutation(COUNT)[:700])
    subset = scorer(positions=positions).subset
    assert subset.score.value == pytest.approx((X.argmax(axis=1) == LABELS)[positions].mean(), abs=1e-12)
    found = score(flipped(0.0), scorer(positions=positions))
    assert found.samples == 700
    assert found.drop == 0.0


def test_a_reference_is_that_of_the_samples_at_hand() -> None:
    positions = np.arange(1, COUNT, 3)
    model = flipped(0.25)
    found = score(model, scorer("agreement", positions), max_drop=0.9)
    same = model.function(X).argmax(axis=1) == X.argmax(axis=1)
    assert found.score is not None
    assert found.score.value == pytest.approx(same[positions].mean(), abs=1e-12)


class Shares(Model):
    """Two outputs: the scores, and maps of three positions, of which some have another class than the samples say."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        scores = super().__call__(inputs)["y"]
        return {"scores": scores, "map": np.stack([scores, inputs["x"], np.roll(inputs["x"], 1, axis=1)], axis=1)}


@pytest.mark.parametrize(("metric", "weights"), [("agreement", (1 / 2 + 1 / 6)), ("agreement@output=map", 1 / 3)])
def test_shares_of_positions_and_of_outputs(metric: str, weights: float) -> None:
    opened = open_metric(metric)
    baseline = measure_baseline(Shares(), DATA, opened, batch_size=50, key="")
    subset = EvaluationSubset.of(DATA, opened, baseline)
    by = SampleScorer.of(Opens(Shares()), PROGRAM, subset, seed=3, batch_size=50)
    model = flipped(0.25)
    share = float((model.function(X).argmax(axis=1) != X.argmax(axis=1)).mean())
    found = score(Shares(model.function), by, max_drop=0.9)
    assert found.score is not None
    assert found.drop == pytest.approx(share * weights, abs=1e-12)
    stopped = score(Shares(model.function), by, max_drop=0.01)
    assert stopped.within is False
    assert stopped.low is not None and stopped.high is not None
    assert stopped.samples < COUNT
    assert 0.01 <= stopped.low <= share * weights <= stopped.high


@pytest.mark.parametrize(("gain", "decibels", "within"), [(0.9, 20.0, False), (1.01, 40.0, True)])
def test_decibels_are_decided_early(gain: float, decibels: float, within: bool) -> None:
    model = Model(lambda x: gain * x)  # an error of a tenth, or a hundredth, of the signal
    found = score(model, scorer("sqnr@60"), max_drop=30.0, improves=False)
    assert found.within is within
    assert found.samples == model.seen < COUNT / 4
    assert found.low is not None and found.high is not None
    assert found.low <= 60.0 - decibels <= found.high
    assert (found.high <= 30.0 * (1 + 1e-5)) if within else (found.low >= 30.0)


def test_the_divergence_is_the_mean_over_the_outputs_that_are_scored() -> None:
    opened = open_metric("sqnr@60")
    baseline = measure_baseline(Shares(), DATA, opened, batch_size=50, key="")
    by = SampleScorer.of(Opens(Shares()), PROGRAM, EvaluationSubset.of(DATA, opened, baseline), seed=3, batch_size=50)
    found = score(Shares(lambda x: 1.1 * x), by, max_samples=64)
    # 0.1^2 of the scores' power, and a third of that of the map's, whose other two positions are exact
    assert found.divergences == pytest.approx([0.01 * (1 + 1 / 3) / 2] * 5, rel=1e-5)
    assert found.divergence_samples == 64


def error_of(outputs: Array, labels: Array) -> Any:
    return np.abs(outputs).max(axis=1)


@pytest.mark.parametrize(("factor", "within"), [(2.0, False), (1.01, True)])
def test_without_bounds_an_asymptotic_test_decides(factor: float, within: bool) -> None:
    vars(error_of)["higher_is_better"] = False
    model = Model(lambda x: factor * x)
    drop = (factor - 1.0) * np.abs(X).max(axis=1).mean()
    by = scorer(error_of)
    assert by.decides and by.asymptotic
    found = score(model, by, max_drop=0.5, improves=False)
    assert (found.within, found.score) == (within, None)
    assert 100 <= found.samples == model.seen < COUNT / 4
    assert found.low is not None and found.high is not None
    assert found.low <= drop <= found.high
    assert found.high <= 0.5 if within else found.low >= 0.5
    best = score(model, by, max_drop=0.5)
    assert (best.samples, best.within) == (COUNT if within else found.samples, within)


def test_drops_without_bounds_are_told_of_the_probe_set() -> None:
    vars(error_of)["higher_is_better"] = False
    by = scorer(error_of)
    found = score(Model(lambda x: 2 * x), by, max_samples=16)
    errors = np.abs(X[by.probe_set]).max(axis=1)
    sizes = [size for size in PROBE_SIZES if size <= 16]
    assert found.probe_drops == pytest.approx([errors[:size].mean() for size in sizes], rel=1e-6)


def test_without_bounds_few_samples_are_all_scored() -> None:
    vars(error_of)["higher_is_better"] = False
    few = scorer(error_of, np.arange(100))
    assert not few.decides
    found = score(Model(lambda x: 2 * x), few)
    assert (found.samples, found.within) == (100, False)
    assert found.drop == pytest.approx(np.abs(X[:100]).max(axis=1).mean(), rel=1e-6)


def test_what_is_not_finite_is_a_failed_trial() -> None:
    vars(error_of)["higher_is_better"] = False
    with pytest.raises(TrialError, match="inf"):
        score(Model(lambda x: np.where(x > 2.0, np.inf, x)), scorer(error_of))


def test_a_metric_of_all_samples_is_scored_on_everything() -> None:
    def spread(outputs: Array, labels: Array) -> Any:
        return outputs.std()

    vars(spread)["per_sample"] = False
    found = score(Model(lambda x: 0.5 * x), scorer(spread))
    assert found.samples == COUNT
    assert found.drop == pytest.approx(0.5 * X.std(), rel=1e-5)


def test_progress_goes_up_to_all_samples() -> None:
    told = []
    score(flipped(0.0), on_progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (COUNT, COUNT)


def test_a_metric_of_all_samples_is_not_asked_about_some_of_them() -> None:
    """AUC is not defined for samples of one class, of which the probe set may be."""

    def two_classes(outputs: Array, labels: Array) -> float:
        if not np.ptp(labels):
            raise ValueError("all labels are equal")
        return float(labels.mean())

    vars(two_classes)["per_sample"] = False
    rare = open_data((X, (np.arange(COUNT) == 17).astype(np.int64)), [SPEC])
    baseline = measure_baseline(Model(), rare, open_metric(two_classes), batch_size=50, key="")
    subset = EvaluationSubset.of(rare, open_metric(two_classes), baseline)
    by = SampleScorer.of(Opens(Model()), PROGRAM, subset, seed=3, batch_size=50)
    assert score(Model(), by).drop == 0.0
