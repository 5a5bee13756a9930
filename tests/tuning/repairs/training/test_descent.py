"""Adam against its formulas, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.tuning.repairs.training.descent import Adam, Parameter, cosine_rate


def test_steps_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 2)).astype(np.float32)
    gradients = rng.normal(size=(5, 3, 2))
    adam = Adam({"one": Parameter(start, unit=0.5)})
    values = {"one": start}
    expected = start.astype(np.float64)
    first = second = np.zeros((3, 2))
    for number, gradient in enumerate(gradients, start=1):
        values = adam.step(values, {"one": gradient}, 0.1)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = (first / (1 - 0.9**number)) / np.sqrt(second / (1 - 0.999**number))
        expected = expected - 0.1 * 0.5 * corrected
        np.testing.assert_allclose(values["one"], expected, atol=1e-6)
    assert values["one"].dtype == np.float32


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_parameter_stays_within_its_limits(sign: float) -> None:
    start = np.array([0.0, 0.3], np.float32)
    adam = Adam({"one": Parameter(start, 1.0, np.array([-0.5, -0.2], np.float32), np.array([0.5, 0.8], np.float32))})
    values = {"one": start}
    for _ in range(10):
        values = adam.step(values, {"one": np.full(2, sign)}, 0.2)
    wanted = [-0.5, -0.2] if sign > 0 else [0.5, 0.8]
    np.testing.assert_allclose(values["one"], wanted, rtol=1e-6)


def test_without_a_gradient_nothing_moves() -> None:
    start = np.array([1.0, -2.0], np.float32)
    found = Adam({"one": Parameter(start, 1.0)}).step({"one": start}, {"one": np.zeros(2)}, 0.1)
    assert found["one"].tolist() == start.tolist()


def test_the_rate_falls_to_almost_nothing() -> None:
    rates = [cosine_rate(step, 50, 0.2) for step in range(50)]
    assert rates[0] == 0.2 and 0 < rates[-1] < 0.001
    assert rates == sorted(rates, reverse=True)
