"""What a .tflite computes, by a plain interpreter: nothing of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray


def lite_outputs(model: Path, images: NDArray[Any], kernels: OpResolverType = OpResolverType.AUTO) -> NDArray[Any]:
    """The only output of a model with one input, for all samples as one batch, by these kernels."""
    interpreter = Interpreter(model_path=str(model), experimental_op_resolver_type=kernels)
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(entry["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], images)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(result["index"]))
