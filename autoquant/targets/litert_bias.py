"""Corrected biases in an INT8 .tflite."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np

from autoquant.errors import TrialError
from autoquant.model.litert import flatbuffer
from autoquant.quantization.affine import Array
from autoquant.quantization.weights import INT32


def add_to_biases(model: Any, biases: Mapping[str, tuple[Any, int]], corrections: Mapping[str, Array]) -> None:
    """Add to the INT32 biases of layers, in place, what `corrections` say in real units, (channels,).

    `biases` gives for each layer its operator (OperatorT) and which of its inputs is the bias. Raises TrialError where
    one would exceed INT32.
    """
    graph = model.subgraphs[0]
    for layer, correction in corrections.items():
        op, place = biases[layer]
        tensor = copy(graph.tensors[op.inputs[place]])
        steps = flatbuffer.value_of(model, tensor)
        assert steps is not None, layer
        scales = np.asarray(tensor.quantization.scale, np.float64)
        corrected = steps + np.rint(correction / scales)
        if not (np.abs(corrected) <= INT32.max).all():  # NaN fails too
            what = "its corrected bias exceeds int32"
            raise TrialError(layer, what, hint="leave the layer in float: add it to skip_layers")
        tensor.buffer = flatbuffer.add_buffer(model, corrected.astype(np.int32).view(np.uint8))
        graph.tensors.append(tensor)  # others may read the one that it was
        op.inputs[place] = len(graph.tensors) - 1
