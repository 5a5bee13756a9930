"""Trials that are scored sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.metric import open_metric
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.streaming import (
    GROWTH,
    PROBED,
    RUNGS,
    SCREENED,
    SOON,
    Rules,
    Stream,
    stream_of,
    streamed,
)
from autoquant.evaluation.scoring.subset import Part
from autoquant.model.model import InputSpec

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

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.seen += len(inputs["x"])
        return {"y": self.function(inputs["x"])}

    def close(self) -> None:
        """Nothing to close."""


def flipped(share: float) -> Model:
    """A model that gives another class for this share of the samples, whichever they are."""
    chosen = {x.tobytes() for x in X[np.random.default_rng(1).random(COUNT) < share]}
    return Model(lambda x: np.stack([np.roll(row, 1) if row.tobytes() in chosen else row for row in x]))


def stream(metric: Any = "top1", positions: NDArray[Any] | None = None) -> Stream:
    metric = open_metric(metric)
    baseline = measure_baseline(Model(), DATA, metric, batch_size=50, key="")
    part = Part.of(DATA, np.arange(COUNT) if positions is None else positions, metric, baseline)
    return stream_of(Model(), part, seed=3, batch_size=50)


def rules(**changed: Any) -> Rules:
    return Rules(**{"allowed": 0.01, "alpha": 0.03, **changed})


def test_a_hopeless_model_is_stopped_after_a_small_part_and_every_sample_is_run_once() -> None:
    model = flipped(0.5)
    found = streamed(model, stream(), rules(), batch_size=50)
    assert found.within is False
    assert found.score is None
    assert found.low is not None
    assert found.low >= 0.01
    assert RUNGS[0] <= found.samples == model.seen < COUNT / 4
    assert found.loss_samples == RUNGS[0]


def test_one_that_is_within_is_scored_on_everything_where_it_is_the_best() -> None:
    model = flipped(0.0)
    found = streamed(model, stream(), rules(), batch_size=50)
    assert (found.samples, model.seen, found.drop, found.within) == (COUNT, COUNT, 0.0, True)
    assert found.score is not None
    assert found.score.value == pytest.approx(1 - WRONG.mean(), abs=1e-12)
    assert set(found.losses) == {0.0}


def test_one_that_is_within_but_no_better_is_stopped_as_soon_as_that_is_proven() -> None:
    model = flipped(0.0)
    found = streamed(model, stream(), rules(improves=False), batch_size=50)
    assert found.within is True
    assert found.score is None
    assert found.high is not None
    assert found.high <= 0.01 * (1 + 1e-5)
    assert model.seen == found.samples < COUNT


def test_one_that_cannot_be_decided_is_scored_on_everything_and_exactly() -> None:
    model = flipped(0.012)
    found = streamed(model, stream(), rules(improves=False, alpha=1e-6), batch_size=50)
    predicted = model.function(X).argmax(axis=1)
    want = (X.argmax(axis=1) == LABELS).mean() - (predicted == LABELS).mean()
    assert found.samples == model.seen == COUNT
    assert found.drop == found.low == found.high == pytest.approx(want, abs=1e-12)
    assert found.within is bool(want <= 0.01)


def test_a_limit_sees_the_probed_samples_alone_the_same_for_all() -> None:
    one, other = stream(), stream()
    found = streamed(flipped(0.3), one, rules(limit=128), batch_size=50)
    assert (found.samples, found.loss_samples, found.drop, found.within) == (128, 128, None, None)
    assert found.losses == streamed(flipped(0.3), other, rules(limit=128, number=9), batch_size=50).losses
    assert len(found.losses) == 2
    assert found.losses[1] > streamed(flipped(0.1), one, rules(limit=128), batch_size=50).losses[1] > 0.0


def test_losses_are_told_for_as_many_of_the_probed_samples_as_were_seen() -> None:
    model = flipped(0.012)
    whole = streamed(model, stream(), rules(improves=False, alpha=1e-6), batch_size=50)
    assert whole.loss_samples == PROBED
    few = streamed(model, stream(), rules(limit=RUNGS[1]), batch_size=7)
    assert few.losses == whole.losses[:2]


def test_a_limit_beyond_all_samples_decides() -> None:
    small = stream(positions=np.arange(0, COUNT, 20))
    found = streamed(flipped(0.0), small, rules(limit=PROBED), batch_size=50)
    assert (found.samples, found.drop, found.within) == (COUNT // 20, 0.0, True)


def changed_at(places: NDArray[Any]) -> Model:
    """A model that gives another class at these places, wherever the samples are asked for."""
    chosen = {x.tobytes() for x in X[places]}
    return Model(lambda x: np.stack([np.roll(row, 1) if row.tobytes() in chosen else row for row in x]))


TOP = np.sort(X, axis=1)[:, ::-1]
BY_MARGIN = np.argsort(TOP[:, 0] - TOP[:, 1], kind="stable")
RIGHT_BY_MARGIN = BY_MARGIN[~WRONG[BY_MARGIN]]


def test_what_loses_more_than_is_allowed_where_margins_are_smallest_is_set_aside() -> None:
    model = changed_at(RIGHT_BY_MARGIN[:5])
    found = streamed(model, stream(), rules(allowed=0.002), batch_size=50)
    assert (found.within, found.score) == (None, None)
    assert found.drop == pytest.approx(5 / COUNT, abs=1e-12)
    assert found.drop is not None and found.low is not None and found.high is not None
    assert found.low <= found.drop <= found.high
    assert found.samples == model.seen <= RUNGS[0] + int(GROWTH * SOON) + 1 + SCREENED * COUNT
    assert not set(stream().screened) - set(BY_MARGIN[: int(SCREENED * COUNT)])
    allowed = streamed(changed_at(RIGHT_BY_MARGIN[:5]), stream(), rules(allowed=0.0025), batch_size=50)
    assert (allowed.samples, allowed.within) == (COUNT, True)
    assert allowed.drop == pytest.approx(0.0025, abs=1e-12)


def test_what_loses_where_margins_are_large_is_scored_on_everything() -> None:
    model = changed_at(RIGHT_BY_MARGIN[-5:])
    found = streamed(model, stream(), rules(allowed=0.002), batch_size=50)
    assert (found.samples, found.within) == (COUNT, False)
    assert found.drop == pytest.approx(0.0025, abs=1e-12)


def right(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
    return (outputs.argmax(axis=1) == labels).astype(float)


def test_without_margins_nothing_is_set_aside() -> None:
    vars(right)["bounds"] = (0.0, 1.0)
    assert not len(stream(right).screened)
    found = streamed(flipped(0.03), stream(right), rules(allowed=0.002, alpha=1e-9), batch_size=50)
    assert (found.samples, found.within) == (COUNT, False)


def test_what_cannot_be_made_up_for_is_out() -> None:
    """FP32 agrees with itself on every sample, so nothing can be won where something is lost."""
    found = streamed(changed_at(BY_MARGIN[:5]), stream("agreement"), rules(allowed=0.002), batch_size=50)
    assert (found.within, found.score) == (False, None)
    assert found.low == found.drop == pytest.approx(0.0025, abs=1e-12)


def test_every_trial_has_an_order_of_its_own() -> None:
    seen = [streamed(flipped(0.06), stream(), rules(number=number), batch_size=50).samples for number in range(1, 9)]
    assert len(set(seen)) > 1
    again = [streamed(flipped(0.06), stream(), rules(number=number), batch_size=7).samples for number in range(1, 9)]
    assert seen == again  # whatever the size of batches


def test_a_part_has_the_score_of_its_own_samples() -> None:
    positions = np.sort(RNG.permutation(COUNT)[:700])
    part = stream(positions=positions).part
    assert part.score.value == pytest.approx((X.argmax(axis=1) == LABELS)[positions].mean(), abs=1e-12)
    found = streamed(flipped(0.0), stream(positions=positions), rules(), batch_size=50)
    assert found.samples == 700
    assert found.drop == 0.0


def test_a_reference_is_that_of_the_samples_at_hand() -> None:
    positions = np.arange(1, COUNT, 3)
    model = flipped(0.25)
    found = streamed(model, stream("agreement", positions), rules(allowed=0.9), batch_size=50)
    same = model.function(X).argmax(axis=1) == X.argmax(axis=1)
    assert found.score is not None
    assert found.score.value == pytest.approx(same[positions].mean(), abs=1e-12)


def error_of(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
    return np.abs(outputs).max(axis=1)


def test_without_bounds_everything_is_scored() -> None:
    vars(error_of)["higher_is_better"] = False
    found = streamed(Model(lambda x: 2 * x), stream(error_of), rules(), batch_size=50)
    assert (found.samples, found.within) == (COUNT, False)
    assert found.drop == pytest.approx(np.abs(X).max(axis=1).mean(), rel=1e-6)


def test_a_metric_of_all_samples_is_scored_on_everything() -> None:
    def spread(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
        return outputs.std()

    vars(spread)["per_sample"] = False
    found = streamed(Model(lambda x: 0.5 * x), stream(spread), rules(), batch_size=50)
    assert found.samples == COUNT
    assert found.drop == pytest.approx(0.5 * X.std(), rel=1e-5)


def test_progress_goes_up_to_all_samples() -> None:
    told = []
    streamed(flipped(0.0), stream(), rules(), batch_size=50, on_progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (COUNT, COUNT)
