"""Compensated rounding against Optimal Brain Quantization as its paper has it, the inverse updated each time."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optimal_brain import squared_errors, textbook

from autoquant.quantization.rounding import compensated, compensated_by_samples

LIMITS: dict[str, Any] = {"lowest": -128, "highest": 127}


def made(seed: int, rows: int, inputs: int, samples: int, *, stack: tuple[int, ...] = ()) -> tuple[Any, Any, Any]:
    """A weight, its min-max scales, and the second moment of correlated inputs, some of which are always 0."""
    weight, scales, seen = made_samples(seed, rows, inputs, samples, stack=stack)
    return weight, scales, seen.swapaxes(-1, -2) @ seen


def made_samples(
    seed: int, rows: int, inputs: int, samples: int, *, stack: tuple[int, ...] = ()
) -> tuple[Any, Any, Any]:
    """The same with the inputs themselves, of which this is the second moment."""
    random = np.random.default_rng(seed)
    weight = random.laplace(size=(*stack, rows, inputs))
    mixed = random.normal(size=(*stack, samples, 1 + inputs // 3)) @ random.normal(
        size=(*stack, 1 + inputs // 3, inputs)
    )
    x = np.maximum(mixed + 0.3 * random.normal(size=mixed.shape) + 0.2, 0.0) * (random.random(inputs) < 0.9)
    return weight, np.abs(weight).max(axis=-1) / 127, x / np.sqrt(samples)


@pytest.mark.parametrize(
    ("inputs", "samples", "limits"),
    [(3, 50, LIMITS), (9, 4, LIMITS), (40, 200, LIMITS), (300, 900, LIMITS), (40, 200, {"lowest": -32, "highest": 31})],
    ids=str,
)
def test_the_same_integers_as_by_updates_of_the_inverse(inputs: int, samples: int, limits: Any) -> None:
    weight, scales, moment = made(inputs, 20, inputs, samples)
    scales = scales * 127 / limits["highest"]
    found = compensated(weight, scales, moment, **limits)
    wanted = textbook(weight, scales, moment, **limits)
    assert found.dtype == np.int8
    assert (found == wanted).all(axis=1).mean() > 0.9  # a value near a tie may fall to the other side of it
    near = np.clip(np.rint(weight / scales[:, None]), limits["lowest"], limits["highest"])
    assert inputs == 3 or (found != near).mean() > 0.1


@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(2, 8),
    st.floats(0.2, 2),
)
def test_never_worse_than_rounding_to_nearest_and_within_range(
    seed: int, rows: int, inputs: int, samples: int, bits: int, clip: float
) -> None:
    weight, scales, moment = made(seed, rows, inputs, samples)
    limits = {"lowest": -(2 ** (bits - 1)), "highest": 2 ** (bits - 1) - 1}
    scales = scales * 127 / limits["highest"] * clip
    found = compensated(weight, scales, moment, **limits)
    assert limits["lowest"] <= found.min() and found.max() <= limits["highest"]
    steps = weight / scales[:, None]
    near = np.clip(np.rint(steps), limits["lowest"], limits["highest"])
    left, was = (squared_errors(steps - integers, moment) for integers in (found, near))
    assert (left <= was * (1.0 + 1e-12)).all()  # which are rounded themselves


@pytest.mark.parametrize("diagonal", [np.ones(30), np.arange(30.0), np.zeros(30)], ids=["alike", "unlike", "nothing"])
def test_inputs_that_have_nothing_to_do_with_one_another_are_rounded_to_nearest(diagonal: Any) -> None:
    weight, scales, _ = made(1, 8, 30, 10)
    found = compensated(weight, scales, np.diag(diagonal), **LIMITS)
    np.testing.assert_array_equal(found, np.rint(weight / scales[:, None]))


def test_inputs_that_are_always_0_are_rounded_to_nearest() -> None:
    weight, scales, moment = made(2, 8, 30, 100)
    dead = np.diagonal(moment) == 0.0
    assert 0 < dead.sum() < 15
    found = compensated(weight, scales, moment, **LIMITS)
    nearest = np.rint(weight / scales[:, None])
    np.testing.assert_array_equal(found[:, dead], nearest[:, dead])
    assert (found != nearest).any()


def test_of_a_stack_each_by_itself_with_one_scale_for_all_or_for_each() -> None:
    weight, scales, moment = made(3, 2, 9, 100, stack=(5,))
    for own in (scales, np.broadcast_to(scales.max(), scales.shape)):
        found = compensated(weight, own, moment, **LIMITS)
        each = [compensated(*one, **LIMITS) for one in zip(weight, own, moment, strict=True)]
        np.testing.assert_array_equal(found, each)


@pytest.mark.parametrize("inputs", [64, 256])
def test_of_correlated_inputs_the_error_is_a_third_on_others_too(inputs: int) -> None:
    random = np.random.default_rng(inputs)
    mixing = random.normal(size=(inputs // 3, inputs))
    seen, unseen = (
        np.maximum(random.normal(size=(8 * inputs, inputs // 3)) @ mixing, 0.0) for _ in ("calibration", "others")
    )
    weight = random.normal(size=(64, inputs))
    scales = np.abs(weight).max(axis=1) / 127
    found = compensated(weight, scales, seen.T @ seen, **LIMITS)
    steps = weight / scales[:, None]
    for x in (seen, unseen):
        left, was = (squared_errors(steps - integers, x.T @ x).sum() for integers in (found, np.rint(steps)))
        assert left < 0.37 * was


@pytest.mark.parametrize(
    ("inputs", "samples", "stack"), [(40, 7, ()), (300, 60, ()), (129, 200, ()), (260, 1, ()), (9, 2, (5,))], ids=str
)
def test_by_few_samples_the_integers_are_the_same(inputs: int, samples: int, stack: tuple[int, ...]) -> None:
    weight, scales, seen = made_samples(inputs, 20, inputs, samples, stack=stack)
    found = compensated_by_samples(weight, scales, seen, **LIMITS)
    wanted = compensated(weight, scales, seen.swapaxes(-1, -2) @ seen, **LIMITS)
    assert found.dtype == np.int8
    assert (found == wanted).all(axis=-1).mean() > 0.9  # a value near a tie may fall to the other side of it
    assert (found != np.rint(weight / scales[..., None])).mean() > 0.02


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 12), st.integers(1, 8), st.integers(2, 8))
def test_by_few_samples_it_is_never_worse_than_rounding_to_nearest(
    seed: int, rows: int, inputs: int, samples: int, bits: int
) -> None:
    weight, scales, seen = made_samples(seed, rows, inputs, samples)
    limits = {"lowest": -(2 ** (bits - 1)), "highest": 2 ** (bits - 1) - 1}
    scales = scales * 127 / limits["highest"]
    found = compensated_by_samples(weight, scales, seen, **limits)
    assert limits["lowest"] <= found.min() and found.max() <= limits["highest"]
    steps = weight / scales[:, None]
    near = np.clip(np.rint(steps), limits["lowest"], limits["highest"])
    left, was = (np.square((steps - integers) @ seen.T).sum(axis=1) for integers in (found, near))
    assert (left <= was * (1.0 + 1e-12)).all()


def test_by_few_samples_without_any_input_or_with_what_is_not_finite() -> None:
    weight, scales, seen = made_samples(8, 3, 5, 2)
    nothing = compensated_by_samples(weight, scales, np.zeros_like(seen), **LIMITS)
    np.testing.assert_array_equal(nothing, np.rint(weight / scales[:, None]))
    with pytest.raises(ValueError, match="must be finite"):
        compensated_by_samples(weight, scales, np.full_like(seen, np.nan), **LIMITS)


def test_few_samples_take_no_square_of_the_inputs() -> None:
    weight, scales, seen = made_samples(6, 4, 1024, 64)
    tracemalloc.start()
    try:
        compensated_by_samples(weight, scales, seen, **LIMITS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * seen.nbytes < 1024**2 * 4


def test_it_takes_the_memory_of_one_moment_more() -> None:
    weight, scales, moment = made(6, 4, 1024, 64)
    tracemalloc.start()
    try:
        compensated(weight, scales, moment, **LIMITS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * moment.nbytes


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 2])
def test_what_is_not_finite_is_refused(wrong: float, where: int) -> None:
    given = list(made(4, 3, 5, 20))
    given[where][1, 1] = wrong
    with pytest.raises(ValueError, match="must be finite"):
        compensated(*given, **LIMITS)


def test_a_scale_of_nothing_is_refused() -> None:
    weight, scales, moment = made(5, 3, 5, 20)
    with pytest.raises(ValueError, match="above 0"):
        compensated(weight, np.zeros_like(scales), moment, **LIMITS)
