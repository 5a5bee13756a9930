"""Runs a float model and its quantized form side by side in TensorFlow: how far they are apart, and the gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.evaluation.engines.engine import fixed_batch
from autoquant.evaluation.metrics.classes import has_probabilities
from autoquant.memory import release_memory
from autoquant.messages import reason
from autoquant.tuning.repairs.training.student import BothModels, Compared, Trainable

MEMORY = 1 << 28
"""Bytes of tensors, about, that are held at once: a step of more samples is carried out in parts."""
COPIES = 16
"""How often, about, a result of a layer is held with all that comes of it: in both models, rounded, and backwards."""
LEAST = 1e-7
"""Probabilities below this are as good as this."""
WAY_OUT = "set training to false"


class Descent(NamedTuple):
    """How far the two models are apart for some samples, and the gradient of that for each parameter."""

    loss: float
    gradients: Mapping[str, Array]


class TrainingRunner:
    """A session of two models, in which losses are means over samples.

    A loss is the sum over layers of the mean squared error of their results, relative to the variance of these, and
    of the squared error of the outputs: of logarithms of probabilities without their mean, where they are such, and
    else relative to the variance too. It takes `samples` to see what the variances are. Raises TrialError where
    TensorFlow does not run the model or back through it, or has no number for the loss.
    """

    def __init__(self, models: BothModels, trainable: Trainable, samples: Mapping[str, Array]) -> None:
        import tensorflow as tf

        self._models, self._trainable = models, trainable
        self._errors = tf.errors
        self._session = tf.compat.v1.Session(graph=models.graph)
        shapes = (one.shape.as_list() for one in models.inputs.values() if one.shape.rank)
        self._fixed = fixed_batch(shapes)
        self.part = self._fixed or 1
        self.deviations, outputs = self._observed(samples)
        with models.graph.as_default():
            self._loss = self._losses(outputs)
            wanted = [trainable.placeholders[name] for name in trainable.parameters]
            try:
                found = tf.gradients(
                    self._loss,
                    wanted,
                    stop_gradients=models.ends,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            except (LookupError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
                raise TrialError("training", f"the model has no gradient: {reason(error)}", hint=WAY_OUT) from error
            self._gradients = [tf.convert_to_tensor(one) for one in found]

    def loss(self, values: Mapping[str, Array], samples: Mapping[str, Array]) -> float:
        """How far the models are apart with these values of the parameters."""
        count, total = 0, 0.0
        for size, part in self._parts(samples):
            total += size * float(self._run(self._loss, part, values))
            count += size
        return total / count

    def descent(self, values: Mapping[str, Array], samples: Mapping[str, Array]) -> Descent:
        """The same with its gradients."""
        count, loss, sums = 0, 0.0, dict[str, Any]()
        for size, part in self._parts(samples):
            one, *gradients = self._run([self._loss, *self._gradients], part, values)
            loss += size * float(one)
            for name, gradient in zip(self._trainable.parameters, gradients, strict=True):
                sums[name] = sums.get(name, 0.0) + size * gradient
            count += size
        return Descent(loss / count, {name: total / count for name, total in sums.items()})

    def outputs(self, samples: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the float model gives, of the outputs that are compared."""
        return self._outputs({name: compared.plain for name, compared in self._models.outputs.items()}, samples)

    def quantized_outputs(self, values: Mapping[str, Array], samples: Mapping[str, Array]) -> Mapping[str, Array]:
        """The same of the quantized model, with these values of the parameters."""
        return self._outputs(
            {name: compared.quantized for name, compared in self._models.outputs.items()}, samples, values
        )

    def _outputs(
        self, tensors: Mapping[str, Any], samples: Mapping[str, Array], values: Mapping[str, Array] | None = None
    ) -> Mapping[str, Array]:
        found = [self._run(list(tensors.values()), part, values) for _, part in self._parts(samples)]
        return {name: np.concatenate(parts) for name, parts in zip(tensors, zip(*found, strict=True), strict=True)}

    def close(self) -> None:
        """Close the session."""
        self._session.close()
        release_memory(MEMORY)

    def _observed(self, samples: Mapping[str, Array]) -> tuple[dict[str, float], Mapping[str, Array]]:
        """The standard deviation of each layer's result, and the outputs; chooses how many samples run at once."""
        layers = {name: compared.plain for name, compared in self._models.layers.items()}
        if self._fixed is None:
            one = next(self._rows(samples, 1))
            held = sum(values.nbytes for values in self._run(list(layers.values()), one))
            self.part = max(1, MEMORY // max(1, COPIES * held))
        sums = {name: np.zeros(3) for name in layers}
        for _, part in self._parts(samples):
            for total, values in zip(sums.values(), self._run(list(layers.values()), part), strict=True):
                total += values.size, values.sum(dtype=np.float64), np.square(values, dtype=np.float64).sum()
        found = {}
        for name, seen in sums.items():
            count, whole, squares = map(float, seen)
            found[name] = math.sqrt(max(squares / count - (whole / count) ** 2, 0.0)) if count else 0.0
        return found, self.outputs(samples)

    def _losses(self, outputs: Mapping[str, Array]) -> Any:
        import tensorflow as tf

        models = self._models
        losses = [
            tf.reduce_mean(tf.square(compared.quantized - compared.plain)) / self.deviations[name] ** 2
            for name, compared in models.layers.items()
            if self.deviations[name] > 0.0
        ]
        losses += [_output_loss(compared, outputs[name]) for name, compared in models.outputs.items()]
        return tf.add_n(losses)

    def _parts(self, samples: Mapping[str, Array]) -> Iterator[tuple[int, Mapping[str, Array]]]:
        for part in self._rows(samples, self.part):
            yield len(next(iter(part.values()))), part

    def _rows(self, samples: Mapping[str, Array], size: int) -> Iterator[Mapping[str, Array]]:
        """So many samples at a time; the last of a fixed batch are filled up with those before them."""
        count = len(next(iter(samples.values())))
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            rows = np.resize(rows, self._fixed or len(rows))
            yield {name: values[rows] for name, values in samples.items()}

    def _run(self, fetches: Any, samples: Mapping[str, Array], values: Mapping[str, Array] | None = None) -> Any:
        feeds = {self._models.inputs[name]: array for name, array in samples.items()}
        feeds |= {self._trainable.placeholders[name]: array for name, array in (values or {}).items()}
        try:
            return self._session.run(fetches, feeds)
        except self._errors.ResourceExhaustedError as error:
            raise TrialError("training", "out of memory", hint=WAY_OUT) from error
        except (self._errors.OpError, ValueError, TypeError) as error:
            what = f"TensorFlow does not run back through the model: {reason(error)}"
            raise TrialError("training", what, hint=WAY_OUT) from error


def _output_loss(compared: Compared, values: Array) -> Any:
    """The squared error of an output, summed over its last axis, from what it is in float for some samples."""
    import tensorflow as tf

    if has_probabilities(values):
        logs = [tf.math.log(tf.maximum(one, LEAST)) for one in compared]
        plain, quantized = (one - tf.reduce_mean(one, axis=-1, keepdims=True) for one in logs)
        return tf.reduce_mean(tf.reduce_sum(tf.square(quantized - plain), axis=-1))
    spread = float(np.std(values, dtype=np.float64)) or 1.0
    return tf.reduce_mean(tf.square((compared.quantized - compared.plain) / spread)) * max(
        1, values.shape[-1] if values.ndim > 1 else 1
    )
