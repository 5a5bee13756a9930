"""Functions of the user's that raise are called once more, and then are to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from autoquant.errors import UserFunctionError
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.plugins import retried
from autoquant.evaluation.metrics.user import user_metric


def failing(times: int, found: Any = 7) -> tuple[Callable[..., Any], list[int]]:
    """Raises so many times, and then gives something; and its calls."""
    calls: list[int] = []

    def call(*given: Any) -> Any:
        calls.append(len(given))
        if len(calls) <= times:
            raise ConnectionError("away")
        return found

    return call, calls


@pytest.mark.parametrize(("times", "wanted"), [(0, 1), (1, 2)])
def test_once_more(times: int, wanted: int) -> None:
    call, calls = failing(times)
    assert retried("mine", call) == 7
    assert len(calls) == wanted


def test_twice_is_an_error_of_the_function() -> None:
    call, calls = failing(2)
    with pytest.raises(UserFunctionError, match=r"^mine: raised ConnectionError: away \(.*test_retried\.py:\d+\)"):
        retried("mine", call)
    assert len(calls) == 2


def test_an_interruption_is_none() -> None:
    def call() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retried("mine", call)


@pytest.mark.parametrize("times", [1, 2])
def test_a_metric(times: int) -> None:
    call, calls = failing(times, np.asarray([0.0, 1.0]))
    metric = user_metric("mine", call)
    given = ({"y": np.zeros((2, 3))}, np.zeros(2), None)
    if times == 1:
        assert metric.measure(*given).tolist() == [0.0, 1.0]
    else:
        with pytest.raises(UserFunctionError):
            metric.measure(*given)
    assert len(calls) == 2


@pytest.mark.parametrize("at", [0, 1, 2])
def test_samples_that_are_missing_are_of_a_second_call(at: int) -> None:
    calls: list[int] = []

    def batches() -> Iterator[Any]:
        calls.append(1)
        for number in range(3):
            if number == at and len(calls) == 1:
                raise ConnectionError("away")
            yield np.full((2, 1), number, np.float32)

    source = FunctionSource("mine", batches, ["x"])
    assert len(source) == 6
    assert len(calls) == 2
    found = np.concatenate([batch.inputs["x"] for batch in source.read(None, 4)])
    assert found.reshape(-1).tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
