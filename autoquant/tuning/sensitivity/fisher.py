"""Sensitivity of all layers of a TensorFlow graph in one pass: Fisher-weighted errors.

For layer l, E[(g_l . dy_l)^2] / 2, summed within a sample, averaged over samples. dy_l is the error of the layer's
output when its input and weight are quantized and all before is float. g_l is the gradient, with respect to that
output, of the model's output in a random direction whose square is on average its Fisher information (`likelihoods`).
To second order this is the divergence of the model's output. One backward pass gives g_l of all layers, and each
candidate takes one more run of each operator: a pass costs as much as a few inferences, however many layers there are.

What is large is too small: from about 0.1 on, a number says that the layer ruins the output, but no longer how much.
The error of a layer's own output, where an INT8 kernel rounds that too, is counted where the output is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine, TensorFlowRunner
from autoquant.evaluation.passes import part_size
from autoquant.messages import reason
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.operators import node_of
from autoquant.model.shapes import import_graph, tensor_of
from autoquant.quantization.affine import Affine
from autoquant.targets.ascend_nodes import inverse_factors
from autoquant.tuning.sensitivity.candidates import QuantizedLayer, quantized_layers
from autoquant.tuning.sensitivity.likelihoods import Likelihood, likelihood_of
from autoquant.tuning.sensitivity.request import Sensitivities, SensitivityRequest

TOGETHER = 8
"""So many candidates of every layer share a pass: each has a weight of its own in memory."""
PRODUCTS = "autoquant/products"
MEASURE = "the divergence can be measured instead"


def fisher(request: SensitivityRequest) -> Sensitivities:
    """Sensitivity of every candidate by gradients.

    All outputs count that are real numbers. Raises ModelError where an operator has no gradient, TrialError where
    TensorFlow does not run the model, PlanError where the statistics lack what a candidate wants.
    """
    graph, samples = request.model.graph, request.sample_subset
    quantized = quantized_layers(request)
    size, likelihoods = _read_outputs(request, samples)
    values: dict[tuple[str, int], float] = {}
    passes = range(0, max(map(len, request.candidates.values()), default=0), TOGETHER)
    for done, first in enumerate(passes):
        numbers = range(first, first + TOGETHER)
        group = {(name, number): one for (name, number), one in quantized.items() if number in numbers}
        if group:
            products = _with_products(graph, list(group.values()), likelihoods, request.seed)
            before, total = done * len(samples), len(passes) * len(samples)

            def on_samples(done: int) -> None:
                request.on_progress(before + done, total)  # noqa: B023  # called before the next pass

            values |= zip(group, _measured(products, graph, samples, size, on_samples), strict=True)
    return request.result_from(values, "fisher")


def _read_outputs(request: SensitivityRequest, data: Dataset) -> tuple[int, Mapping[str, Likelihood]]:
    """How many samples to run at once, and how to read each output of real numbers."""
    graph = request.model.graph
    made = [request.layers[name].node for name in request.candidates]
    with closing(TensorFlowEngine().open_graph(graph, list(dict.fromkeys([*graph.outputs, *made])))) as runner:
        size = part_size(request.model, runner, data)
        found = runner(next(data.batches(size)).inputs)
    real = request.reading.counting([name for name in graph.outputs if found[name].dtype == np.float32])
    if not real:
        raise ModelError(request.model.name, "has no output of float32", hint="choose another one with --outputs")
    return size, {name: likelihood_of(found[name], request.reading) for name in real}


def _measured(products: Any, graph: Graph, data: Dataset, size: int, on_samples: Callable[[int], None]) -> list[float]:
    """Half the mean square of each candidate's products; `on_samples` is told how many samples are done."""
    squares, done = list[Array](), 0
    on_samples(done)
    with closing(TensorFlowRunner(products, graph.inputs, [PRODUCTS])) as runner:
        for batch in data.batches(size):
            squares.append(np.square(runner(batch.inputs)[PRODUCTS].astype(np.float64)).sum(axis=0))
            done += len(batch)
            on_samples(done)
    means: Array = np.sum(squares, axis=0) / (2 * len(data))
    return [float(mean) if np.isfinite(mean) else np.inf for mean in means]


def _with_products(
    graph: Graph, group: Sequence[QuantizedLayer], likelihoods: Mapping[str, Likelihood], seed: int
) -> Any:
    """A GraphDef that also has PRODUCTS, (batch, candidates): g . dy of each sample and candidate."""
    import tensorflow as tf

    tf_graph = import_graph(graph)
    with tf_graph.as_default():
        tf.compat.v1.set_random_seed(seed)
        layers = list({one.layer.node: one.layer for one in group}.values())
        gradients = _gradients(graph, tf_graph, layers, likelihoods)
        batch = tf.shape(tensor_of(tf_graph, graph.inputs[0]))[0]
        fake_quantizer = _FakeQuantizer(graph, tf_graph)
        products = []
        for one in group:
            gradient = gradients[one.layer.node]
            if gradient is None:
                products.append(tf.zeros([batch]))
                continue
            # Only then: before the backward pass has come to the layer, nothing could be done with the error.
            with tf.control_dependencies([gradient]):
                error = fake_quantizer.output(one) - tensor_of(tf_graph, one.layer.node)
                products.append(tf.reduce_sum(tf.reshape(gradient * error, [batch, -1]), axis=1))
        tf.stack(products, axis=1, name=PRODUCTS)
    return tf_graph.as_graph_def()


def _gradients(
    graph: Graph, tf_graph: Any, layers: Sequence[Layer], likelihoods: Mapping[str, Likelihood]
) -> Mapping[str, Any]:
    """The gradient with respect to each operator's output; None where that influences no output.

    Raises ModelError where an operator has none.
    """
    import tensorflow as tf

    outputs = [tensor_of(tf_graph, name) for name in likelihoods]
    directions = []
    for number, (output, likelihood) in enumerate(zip(outputs, likelihoods.values(), strict=True)):
        signs = tf.where(tf.random.uniform(tf.shape(output), seed=number) < 0.5, -1.0, 1.0)
        directions.append(likelihood.factor(output, signs))
    made = [tensor_of(tf_graph, layer.node) for layer in layers]
    try:
        found = tf.gradients(outputs, made, grad_ys=directions)
    except (LookupError, NotImplementedError, ValueError, TypeError) as error:
        raise ModelError("gradient", reason(error), hint=MEASURE) from error
    needed = graph.ancestors(*likelihoods)
    for layer, gradient in zip(layers, found, strict=True):
        if gradient is None and node_of(layer.node) in needed:
            what = "an operator between this layer and the output has no gradient"
            raise ModelError(layer.name, what, hint=MEASURE)
    return {
        layer.node: None if one is None else tf.convert_to_tensor(one) for layer, one in zip(layers, found, strict=True)
    }


class _FakeQuantizer:
    """Operators that compute what quantized layers do; candidates share what they have in common."""

    def __init__(self, graph: Graph, tf_graph: Any) -> None:
        self._graph = graph
        self._tf_graph = tf_graph
        self._activations: dict[tuple[str, Affine, tuple[float, ...], int], Any] = {}
        self._weights: dict[tuple[object, ...], Any] = {}

    def output(self, one: QuantizedLayer) -> Any:
        """What the operator makes of its quantized input and weight."""
        op = self._tf_graph.get_operation_by_name(one.layer.node)
        inputs = list(op.inputs)
        for place, tensor, record in zip(_data_places(one.layer), one.layer.activations, one.records, strict=True):
            inputs[place] = self._activation(one, tensor, record.activation)
        if one.layer.weight is not None:
            assert one.layer.operator.weight is not None, one.layer.name
            inputs[one.layer.operator.weight] = self._weight(one)
        attributes = dict(op.node_def.attr)
        made = self._tf_graph.create_op(op.type, inputs, [output.dtype for output in op.outputs], attrs=attributes)
        return made.outputs[0]

    def _activation(self, one: QuantizedLayer, tensor: str, affine: Affine) -> Any:
        import tensorflow as tf

        key = (tensor, affine, one.balance, one.layer.data_axis)
        if key not in self._activations:
            values = tensor_of(self._tf_graph, tensor)
            if one.balance:
                values = values * inverse_factors(one.balance, self._graph.nodes[one.layer.node])
            rounded = tf.quantization.fake_quant_with_min_max_args(values, affine.low, affine.high, affine.bits)
            self._activations[key] = rounded
        return self._activations[key]

    def _weight(self, one: QuantizedLayer) -> Any:
        import tensorflow as tf

        if one.weight_key not in self._weights:
            self._weights[one.weight_key] = tf.constant(one.real_weight(self._graph))
        return self._weights[one.weight_key]


def _data_places(layer: Layer) -> tuple[int, ...]:
    """Which inputs of the layer's operator are quantized, one for each activation."""
    if layer.tensor_only:
        return (int(layer.name.rpartition(":")[2]),)
    return (layer.operator.data,) if len(layer.activations) == 1 else tuple(range(len(layer.activations)))
