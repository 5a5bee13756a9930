"""Opening a model file of any kind; TensorFlow is loaded only for its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoquant.errors import UsageError
from autoquant.model.model import EVERYTHING, Fusion, Model, is_lite


def open_model(
    path: str | Path,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    fusion: Fusion = EVERYTHING,
    signature: str | None = None,
) -> Model:
    """Open a frozen .pb, a SavedModel folder, a .keras, .h5 or .tflite file; raises ModelError where that cannot be.

    `inputs` and `outputs`, with or without ':0', override what a file of TensorFlow says; an input inside the graph
    cuts off all that is before it. Inputs that were found, not asked for, and that no output needs are left out.
    `fusion` says what is joined with the layer before it; raises PlanError where that names what is not there.
    `signature` chooses one of several in a .tflite file, the only kind for which TensorFlow is not loaded.
    """
    path = Path(path)
    if is_lite(path):
        from autoquant.model.litert.load import load_lite

        if inputs or outputs:
            hint = "leave them out; --signature chooses among several"
            raise UsageError("--inputs, --outputs", "are for files of TensorFlow, not for a .tflite", hint=hint)
        return load_lite(path, signature=signature)
    if signature is not None:
        raise UsageError("--signature", "is for .tflite files", hint="choose with --inputs and --outputs")
    from autoquant.model.load import open_graph

    return open_graph(path, inputs=inputs, outputs=outputs, fusion=fusion)
