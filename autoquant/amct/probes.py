"""Probes: Python functions that see tensors of a live graph whenever an operator of it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any


def attach(graph: Any, node: str, tensors: Sequence[Any], see: Callable[..., None], *, name: str) -> Any:
    """Call `see` with the values of `tensors` before each run of the operator `node` of a tf.Graph.

    No tensor of the graph gets another name or another reader, so whatever the user runs keeps working. `tensors` must
    not depend on `node`. `see` gets one array each, which is TensorFlow's own memory: copy what is kept. It is never
    called twice at the same time, whatever number of threads run sessions. What it raises ends the session's run, whose
    error then holds the message. Sessions that ran `node` before do not notice the change: TensorFlow runs the graph
    that it knows.

    Returns the tf.Operation, called `name`.
    """
    import tensorflow as tf

    lock = Lock()

    def look(*arrays: Any) -> None:
        with lock:
            see(*arrays)

    with graph.as_default():
        probe = tf.numpy_function(look, list(tensors), [], name=name)
    graph.get_operation_by_name(node)._add_control_input(probe)
    return probe
