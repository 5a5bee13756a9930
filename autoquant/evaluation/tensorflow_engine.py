"""Runs graphs in a TensorFlow session on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.errors import TrialError
from autoquant.evaluation.batch import Array
from autoquant.model.graph import Graph, GraphDef


class TensorFlowEngine:
    """Stock TensorFlow; the operators of a saved model come from the function library in its file."""

    name = "tensorflow"

    def open_graph(self, graph: Graph, fetches: Sequence[str] | None = None) -> TensorFlowRunner:
        """Open a float graph."""
        return TensorFlowRunner(graph.to_graph_def(), graph.inputs, fetches or graph.outputs, cut=not fetches)

    def open_file(self, path: Path, graph: Graph) -> TensorFlowRunner:
        """Open a saved .pb."""
        return TensorFlowRunner(GraphDef.FromString(path.read_bytes()), graph.inputs, graph.outputs)


def tf_graph_of(graph_def: Any, where: str = "graph") -> Any:
    """A GraphDef of ours as a tf.Graph. Raises TrialError at `where` when TensorFlow refuses it."""
    import tensorflow as tf

    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
    except (ValueError, tf.errors.OpError) as error:
        what = f"TensorFlow refuses it: {str(error).splitlines()[0]}"
        raise TrialError(where, what, hint="leave the layer in float") from error
    return graph


class TensorFlowRunner:
    """A session with one graph; `cut` says that a row of what it fetches is a sample, as of outputs."""

    def __init__(self, graph_def: Any, inputs: Sequence[str], fetches: Sequence[str], *, cut: bool = True) -> None:
        import tensorflow as tf

        self._errors = tf.errors
        self._inputs = tuple(inputs)
        self._fetches = tuple(fetches)
        self._cut = cut
        graph = tf_graph_of(graph_def)
        placeholders = [graph.get_tensor_by_name(f"{name}:0") for name in self._inputs]
        self._batch = next((p.shape[0] for p in placeholders if p.shape.rank and p.shape[0] is not None), None)
        self._session = tf.compat.v1.Session(graph=graph)
        self._call = self._session.make_callable(
            [graph.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in self._fetches],
            feed_list=placeholders,
        )

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one batch."""
        feeds = [inputs[name] for name in self._inputs]
        size = len(feeds[0])
        if self._batch is None or self._batch == size:
            return dict(zip(self._fetches, self._run(feeds), strict=True))
        parts = [self._padded(feeds, start) for start in range(0, size, self._batch)]
        joined = [np.concatenate(arrays) if arrays[0].ndim else arrays[0] for arrays in zip(*parts, strict=True)]
        padded = len(parts) * self._batch
        if self._cut:  # an inner tensor may have its samples on another axis
            joined = [rows[:size] if rows.ndim and len(rows) == padded else rows for rows in joined]
        return dict(zip(self._fetches, joined, strict=True))

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def _padded(self, feeds: Sequence[Array], start: int) -> list[Array]:
        """Run samples from `start` on, the last one repeated to fill the model's fixed batch."""
        assert self._batch is not None
        rows = np.minimum(np.arange(start, start + self._batch), len(feeds[0]) - 1)
        return self._run([feed[rows] for feed in feeds])

    def _run(self, feeds: Sequence[Array]) -> list[Array]:
        try:
            return list(self._call(*feeds))
        except self._errors.ResourceExhaustedError as error:
            raise TrialError("TensorFlow", "out of memory", hint="a smaller --batch-size may help") from error
        except (self._errors.OpError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise TrialError("TensorFlow", f"the model does not run: {reason}", hint="check the input data") from error
