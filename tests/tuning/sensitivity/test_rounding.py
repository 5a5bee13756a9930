"""Ties of weights that are fake-quantized for LiteRT are rounded to even, as in what it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sensitivity_requests import opened, sensitivity_request

from autoquant.targets.table import open_target
from autoquant.tuning.sensitivity.candidates import fake_quantized_layers

WEIGHT = np.array([[127.0, 62.5, 63.5, -62.5, -63.5, 0.5, 1.5]], np.float32)


def test_ties_of_weights_are_rounded_to_even(tmp_path: Path) -> None:
    """The scale of the weight is 1; WEIGHT stays what it is where nothing is rounded."""

    def write(tf: Any, x: Any) -> Any:
        return tf.linalg.matmul(x, tf.constant(WEIGHT.T.copy()), name="layer")

    x = np.linspace(-1.0, 1.0, 56).reshape(8, 7)
    model = open_target("litert").lowered(opened(tmp_path, write, (None, 7)))
    ((_, found),) = fake_quantized_layers(sensitivity_request(model, x, target="litert"))
    (weight,) = found.constants.values()
    assert weight.ravel().tolist() == [127.0, 62.0, 64.0, -62.0, -64.0, 0.0, 2.0]
