"""Runs graphs in a TensorFlow session on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from autoquant.array import Array
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.engine import fixed_batch, run_fixed
from autoquant.memory import release_memory
from autoquant.messages import reason
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.model import Program
from autoquant.model.shapes import tensor_of


class TensorFlowEngine:
    """Stock TensorFlow; the operators of a saved model come from the function library in its file."""

    name: ClassVar[str] = "tensorflow"

    @property
    def version(self) -> str:
        """Of TensorFlow."""
        return f"tensorflow {version('tensorflow')}"

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> TensorFlowRunner:
        """Open a float graph. Raises ModelError where it is none of TensorFlow."""
        if not isinstance(graph, Graph):
            raise ModelError("engine tensorflow", "cannot run a .tflite model", hint="choose --engine litert")
        return TensorFlowRunner(graph.to_graph_def(), graph.inputs, fetches or graph.outputs, cut=not fetches)

    def open_file(self, path: Path, graph: Program) -> TensorFlowRunner:
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
        what = f"TensorFlow refuses it: {reason(error)}"
        raise TrialError(where, what, hint="leave the layer in float") from error
    return graph


def _config(graph_def: Any, *, inside: bool) -> Any:
    """How to run a graph, of which tensors inside are fetched, or not.

    Without two passes over it that copy the weights, and change nothing of what runs on the CPU: they choose layouts
    for a GPU, and what to move out of its memory. TensorFlow 2.21 joins a BiasAdd with the LeakyRelu that alone reads
    it even where the BiasAdd is fetched, which then cannot be found.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

    config = tf.compat.v1.ConfigProto()
    passes = config.graph_options.rewrite_options
    passes.layout_optimizer, passes.memory_optimization = RewriterConfig.OFF, RewriterConfig.NO_MEM_OPT
    if inside and any(node.op == "LeakyRelu" for node in graph_def.node):
        passes.remapping = RewriterConfig.OFF
    return config


class TensorFlowRunner:
    """A session with one graph; `cut` says that a row of what it fetches is a sample, as of outputs."""

    def __init__(self, graph_def: Any, inputs: Sequence[str], fetches: Sequence[str], *, cut: bool = True) -> None:
        import tensorflow as tf

        self._errors = tf.errors
        self._inputs = tuple(inputs)
        self._fetches = tuple(fetches)
        self._cut = cut
        self._size = graph_def.ByteSize()
        graph = tf_graph_of(graph_def)
        placeholders = [tensor_of(graph, name) for name in self._inputs]
        self._batch = fixed_batch(p.shape.as_list() for p in placeholders if p.shape.rank)
        self._session: Any = tf.compat.v1.Session(graph=graph, config=_config(graph_def, inside=not cut))
        self._call: Any = self._session.make_callable(
            [tensor_of(graph, name) for name in self._fetches],
            feed_list=placeholders,
        )

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one batch."""
        feeds = [inputs[name] for name in self._inputs]
        arrays = run_fixed(self._run, feeds, self._batch, cut=self._cut)
        return dict(zip(self._fetches, arrays, strict=True))

    def close(self) -> None:
        """Close the session, and give back the memory of graph and session, which hold the weights several times."""
        self._session.close()
        self._session = self._call = None
        release_memory(self._size)

    def _run(self, feeds: Sequence[Array]) -> list[Array]:
        try:
            return list(self._call(*feeds))
        except self._errors.ResourceExhaustedError as error:
            raise TrialError("TensorFlow", "out of memory", hint="a smaller --batch-size may help") from error
        except (self._errors.OpError, ValueError) as error:
            what = f"the model does not run: {reason(error)}"
            raise TrialError("TensorFlow", what, hint="check the input data") from error
