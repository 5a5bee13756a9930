"""Probes see what operators read, and change nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.amct.probes import attach


@pytest.fixture
def relus(built: Callable[[Callable[[], Any]], Any]) -> Any:
    """`x` (batch, 3) -> `first` -> `second`, all of them relus but `x`; and `aside`, another reader of `x`."""
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="x")
        tf.nn.relu(tf.nn.relu(x, name="first"), name="second")
        tf.nn.relu(x, name="aside")

    return built(write)


def test_a_probe_sees_its_tensors_before_the_operator_runs_and_only_then(relus: Any) -> None:
    import tensorflow as tf

    seen: list[Any] = []
    probe = attach(
        relus, "second", [relus.get_tensor_by_name(f"{n}:0") for n in ("x", "first")], see_into(seen), name="p"
    )
    assert probe.name == "p"
    fed = np.array([[-1.0, 0.0, 2.0]], np.float32)
    with tf.compat.v1.Session(graph=relus) as session:
        session.run("aside:0", {"x:0": fed})
        assert seen == []
        np.testing.assert_array_equal(session.run("second:0", {"x:0": fed}), [[0.0, 0.0, 2.0]])
    assert [[array.tolist() for array in arrays] for arrays in seen] == [[[[-1.0, 0.0, 2.0]], [[0.0, 0.0, 2.0]]]]


def test_what_a_probe_raises_reaches_the_user(relus: Any) -> None:
    import tensorflow as tf

    def see(values: object) -> None:
        raise ValueError("the layer 'second' is to blame; switch it off")

    attach(relus, "second", [relus.get_tensor_by_name("first:0")], see, name="p")
    with tf.compat.v1.Session(graph=relus) as session:
        session.run("aside:0", {"x:0": np.zeros((1, 3))})
        with pytest.raises(tf.errors.OpError, match=r"the layer 'second' is to blame; switch it off"):
            session.run("second:0", {"x:0": np.zeros((1, 3))})


def test_a_probe_is_never_called_twice_at_a_time(relus: Any) -> None:
    import tensorflow as tf

    inside, most, calls = 0, 0, 0

    def see(values: object) -> None:
        nonlocal inside, most, calls
        inside += 1
        most, calls = max(most, inside), calls + 1
        threading.Event().wait(0.001)
        inside -= 1

    attach(relus, "second", [relus.get_tensor_by_name("first:0")], see, name="p")
    with tf.compat.v1.Session(graph=relus) as session:

        def run() -> None:
            for _ in range(10):
                session.run("second:0", {"x:0": np.zeros((1, 3))})

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (most, calls) == (1, 40)


def see_into(seen: list[Any]) -> Callable[..., Any]:
    return lambda *arrays: seen.append([array.copy() for array in arrays])
