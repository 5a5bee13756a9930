"""Two engines compared on samples: fakes that compute known functions of x, against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.comparison import (
    FLOAT_BOUND,
    INT8_BOUND,
    MIN_AGREEMENT,
    NUDGE,
    Comparison,
    Nudged,
    Remembered,
    compare,
)
from autoquant.evaluation.engines.engine import Runner
from autoquant.model.model import InputSpec

RANDOM = np.random.default_rng(5)


class Fake:
    """A runner that computes its outputs by functions of x, and counts the samples."""

    def __init__(self, **outputs: Callable[[Any], Any]) -> None:
        self.outputs = outputs
        self.seen = 0

    def __call__(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.seen += len(inputs["x"])
        return {name: function(inputs["x"]) for name, function in self.outputs.items()}

    def close(self) -> None:
        """Nothing to free."""


def data_of(x: Any) -> Any:
    return open_data((x, None), [InputSpec("x", np.dtype(np.float32), (None, *x.shape[1:]))])


def found(ours: Fake, theirs: Runner, x: Any, **options: Any) -> Comparison:
    return compare(ours, theirs, data_of(x), **{"batch_size": 50, "of_classes": True, **options})


def same(x: Any) -> Any:
    return x


def rms(values: Any) -> float:
    return float(np.sqrt((np.asarray(values, np.float64) ** 2).mean()))


def test_the_same_is_the_same() -> None:
    x = RANDOM.normal(size=(700, 4)).astype(np.float32)
    assert found(Fake(y=same), Fake(y=same), x) == Comparison(512, 1.0, 0.0)


def test_differences_are_relative_to_the_outputs() -> None:
    x = RANDOM.normal(size=(300, 4)).astype(np.float32)
    got = found(Fake(y=lambda x: x * np.float32(1.0625)), Fake(y=same), x)
    assert (got.samples, got.agreement) == (300, 1.0)
    assert got.difference == pytest.approx(0.0625, rel=1e-6)
    assert got.within(0.07) and not got.within(0.06)


def test_differences_of_int8_are_relative_to_what_quantization_does() -> None:
    x = RANDOM.normal(size=(300, 4)).astype(np.float32)
    theirs, ours = np.round(x * 4) / 4, np.round(x * 4 + 0.1) / 4
    runners = (Fake(y=lambda x: np.round(x * 4 + np.float32(0.1)) / 4), Fake(y=lambda x: np.round(x * 4) / 4))
    got = found(*runners, x, plain=Fake(y=same), of_classes=False)
    assert got.difference == pytest.approx(rms(ours - theirs) / rms(theirs - x), rel=1e-4)
    assert got.agreement == 1.0


def test_float_rounding_is_never_too_much_where_quantization_does_nothing() -> None:
    x = RANDOM.normal(size=(300, 4)).astype(np.float32)
    ours = Fake(y=lambda x: x * np.float32(1 + 2.0**-20))
    assert found(ours, Fake(y=same), x, plain=Fake(y=same)).within(INT8_BOUND)
    assert not found(Fake(y=lambda x: x * np.float32(1.001)), Fake(y=same), x, plain=Fake(y=same)).within(INT8_BOUND)


def test_the_output_that_differs_most_counts() -> None:
    x = RANDOM.normal(size=(40, 3)).astype(np.float32)
    ours = Fake(near=same, far=lambda x: x * np.float32(1.5))
    assert found(ours, Fake(near=same, far=same), x).difference == pytest.approx(0.5)


def test_nothing_agrees_without_numbers() -> None:
    x = RANDOM.normal(size=(40, 3)).astype(np.float32)
    got = found(Fake(y=lambda x: x * np.float32(np.nan)), Fake(y=same), x)
    assert math.isnan(got.difference) and not got.within(math.inf)


def test_outputs_that_are_all_zero() -> None:
    x = np.zeros((20, 3), np.float32)
    assert found(Fake(y=same), Fake(y=same), x).within(FLOAT_BOUND)
    assert found(Fake(y=lambda x: x + np.float32(1e-9)), Fake(y=same), x).difference == math.inf


def swapped(count: int) -> Fake:
    """Two classes change places in so many of the samples, which are known by their third number."""

    def swap(x: Any) -> Any:
        y = x.copy()
        wrong = x[:, 2] < count
        y[wrong, :2] = y[wrong, 1::-1]
        return y

    return Fake(y=swap)


def numbered(size: int) -> Any:
    x = (RANDOM.normal(size=(size, 3)) * 1e5 + 1e6).astype(np.float32)
    x[:, 2] = np.arange(size)
    return x


@pytest.mark.parametrize(
    ("size", "wrong", "samples", "enough"),
    [(900, 0, 512, True), (900, 1, 900, False), (1000, 1, 1000, True), (3000, 4, 3000, False), (5000, 0, 512, True)],
)
def test_classes_must_be_the_same_in_999_of_1000(size: int, wrong: int, samples: int, enough: bool) -> None:
    """With a sample that differs among the first, more are looked at: one in 512 says too little."""
    x = numbered(size)
    first = np.random.default_rng(0).permutation(size)[:512]
    x[:, 2] = size
    x[first[:wrong], 2] = np.arange(wrong)
    got = found(swapped(wrong), Fake(y=same), x)
    assert (got.samples, got.agreement) == (samples, 1 - wrong / samples)
    assert (got.agreement >= MIN_AGREEMENT) is enough


@pytest.mark.parametrize(
    ("difference", "agreement", "same"),
    [(0.59, 0.95, True), (0.61, 0.95, False), (0.59, 0.93, True), (0.59, 0.92, False), (math.nan, 0.95, False)],
)
def test_an_int8_model_may_differ_as_it_does_from_itself(difference: float, agreement: float, same: bool) -> None:
    """By 1.5 times as much: 0.6 of what quantization does, and 7.5 % of 100 samples, of which one is for luck."""
    itself = Comparison(100, 0.96, 0.4)
    assert Comparison(100, agreement, difference).within_itself(itself) is same


def test_an_int8_model_never_differs_by_more_than_independent_errors_do() -> None:
    itself = Comparison(100, 0.5, 1.0)
    assert Comparison(100, 0.5, 1.41).within_itself(itself)
    assert not Comparison(100, 0.5, 1.42).within_itself(itself)


def test_inputs_are_nudged_by_little_and_always_alike() -> None:
    x = RANDOM.normal(size=(40, 3)).astype(np.float32)
    runner = Nudged(Fake(x=same, number=lambda x: np.arange(len(x))))
    first, second = (runner({"x": x})["x"] for _ in range(2))
    assert first.dtype == np.float32 and np.array_equal(first, second)
    changed = np.abs(first.astype(np.float64) / x - 1.0)
    assert changed.mean() > 0.25 * NUDGE and changed.max() <= NUDGE + 2.0**-24
    whole = np.arange(4)
    assert Nudged(Fake(x=same))({"x": whole})["x"] is whole


def test_what_a_runner_gave_is_remembered_also_when_it_is_closed() -> None:
    x, opened = numbered(100), list[Fake]()

    def anew() -> Fake:
        opened.append(Fake(y=same))
        return opened[-1]

    theirs = Remembered(anew)
    assert found(Fake(y=same), theirs, x).agreement == 1.0
    theirs.close()
    assert found(swapped(1), theirs, x).agreement == 0.99
    assert [one.seen for one in opened] == [101], "one more for the size of an output"
    theirs({"x": x[:7]})
    assert [one.seen for one in opened] == [101, 7]


def test_no_more_outputs_are_remembered_than_there_is_room_for() -> None:
    x, plain = numbered(4).astype(np.float32), Fake(y=same)
    theirs = Remembered(lambda: plain, most=2 * x[:1].nbytes)
    for _ in range(3):
        for row in range(4):
            assert np.array_equal(theirs({"x": x[row : row + 1]})["y"], x[row : row + 1])
    assert plain.seen == 4 + 2 + 2


def test_no_more_than_4096_samples_are_compared() -> None:
    x = numbered(5000)
    got = found(swapped(5000), Fake(y=same), x)
    assert got.samples == 4096 and got.agreement == 0.0


def test_outputs_that_are_no_classes_need_not_have_the_same_argmax() -> None:
    x = numbered(100)
    assert found(swapped(100), Fake(y=same), x, of_classes=False).agreement == 1.0


def test_integers_must_be_the_same() -> None:
    x = numbered(100)
    ours = Fake(y=lambda x: np.where(x[:, 2] < 3, 7, x[:, 2]).astype(np.int64))
    got = found(ours, Fake(y=lambda x: x[:, 2].astype(np.int64)), x)
    assert got == Comparison(100, 0.97, 0.0)


def test_an_output_without_a_batch_is_said() -> None:
    x = numbered(100)
    with pytest.raises(ModelError, match="its first axis must be the batch"):
        found(Fake(y=lambda x: x.sum()), Fake(y=same), x)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    x = numbered(120)
    found(Fake(y=same), Fake(y=same), x, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(50, 120), (100, 120), (120, 120)]


def test_it_can_be_read() -> None:
    assert str(Comparison(512, 0.998, 0.0123)) == "99.80% of 512 samples agree, outputs differ by 0.012"


@pytest.mark.parametrize(("apart", "agreement"), [(0.0, 1.0), (1e-7, 1.0), (1e-5, 0.0)])
def test_which_of_two_equal_scores_comes_first_is_no_difference(apart: float, agreement: float) -> None:
    """Saturated scores tie; one engine's rounding puts this class first, another's that."""

    def first(x: Any) -> Any:
        return np.stack([np.full(len(x), 1.0), np.full(len(x), 1.0 - apart), np.zeros(len(x))], axis=1)

    def second(x: Any) -> Any:
        return np.stack([np.full(len(x), 1.0 - apart), np.full(len(x), 1.0 + 1e-7), np.zeros(len(x))], axis=1)

    assert found(Fake(y=second), Fake(y=first), np.zeros((100, 4), np.float32)).agreement == agreement
