"""Opens a model file: read, normalized, and checked. TensorFlow is loaded for its own files, and not for a .tflite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.errors import ModelError, UsageError
from autoquant.memory import release_memory
from autoquant.model.feed import OPTION, Feed
from autoquant.model.model import EVERYTHING, EXPECTED, KERAS, Front, Fusion, Model, check_file, is_lite

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.model.graph import Graph


def open_model(
    path: str | Path,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    fusion: Fusion = EVERYTHING,
    signature: str | None = None,
    feed: Feed = (),
    for_litert: bool = False,
    trust: bool = False,
) -> Model:
    """Open a frozen .pb, a SavedModel folder, a .keras, .h5 or .tflite file; raises ModelError where that cannot be.

    `inputs` and `outputs`, with or without ':0', override what a file of TensorFlow says; an input inside the graph
    cuts off all that is before it. Inputs that were found, not asked for, and that no output needs are left out.
    `fusion` says what is joined with the layer before it; raises PlanError where that names what is not there.
    `signature` chooses one of several in a SavedModel or in a .tflite file, for which TensorFlow is not loaded. `feed`
    gives values to placeholders that are no data, such as is_training; raises UsageError where it does not fit.
    Channels first become channels last, and FakeQuants of activations are removed, which `notes` of the model say. With
    `for_litert`, what LiteRT cannot run in front of the layers, such as lookups of text, is cut off. A model that may
    do more than compute is refused before it runs, unless there is `trust` in whoever made it.
    """
    path = Path(path)
    check_file(path)
    if is_lite(path):
        from autoquant.model.litert.load import load_lite

        if inputs or outputs:
            hint = "leave them out; --signature chooses among several"
            raise UsageError("--inputs, --outputs", "are for files of TensorFlow, not for a .tflite", hint=hint)
        if feed:
            raise UsageError(OPTION, "is for files of TensorFlow, not for a .tflite", hint="leave it out")
        return load_lite(path, signature=signature)
    if signature is not None and not path.is_dir():
        what = "is for SavedModels and .tflite files"
        raise UsageError("--signature", what, hint="choose with --inputs and --outputs")
    from autoquant.model.channels_last import channels_last
    from autoquant.model.fake_quants import without_fakes
    from autoquant.model.half import in_float32
    from autoquant.model.interface import check_conditions, select_interface
    from autoquant.model.load import load
    from autoquant.model.shapes import input_specs

    frozen = in_float32(
        select_interface(load(path, feed, signature=signature, trust=trust), inputs=inputs, outputs=outputs)
    )
    size = 4 * frozen.size  # what TensorFlow and Keras made on the way is many times the size of the weights
    release_memory(size)
    graph = _normalized(channels_last(without_fakes(frozen)), fusion, inputs)
    check_conditions(graph)
    notes = tuple(_notes(frozen))
    del frozen
    release_memory(size)
    ordered = bool(inputs) or path.suffix.lower() in KERAS
    model = Model(path.resolve().stem, graph, input_specs(graph), model_digest(path), notes, ordered)
    return without_front(model) if for_litert else model


def without_front(model: Model) -> Model:
    """The model behind what LiteRT cannot run in front of it, with that as its `front`. Raises ModelError."""
    from autoquant.model.front import cut_front
    from autoquant.model.shapes import input_specs

    halves = cut_front(model.graph)
    if halves is None:
        return model
    front = Front(halves.front, model.inputs)
    return replace(model, program=halves.rest, inputs=input_specs(halves.rest), front=front)


def _notes(frozen: Graph) -> Iterator[str]:
    from autoquant.model import channels_last, fake_quants

    rounded = fake_quants.rounded_activations(frozen)
    if rounded:
        yield fake_quants.NOTE.format(len(rounded))
    if channels_last.has_channels_first(frozen):
        yield channels_last.NOTE


def prepare_graph(
    loaded: Graph, *, inputs: Sequence[str] = (), outputs: Sequence[str] = (), fusion: Fusion = EVERYTHING
) -> Graph:
    """A loaded graph between its inputs and outputs, checked, in float32, and normalized. Raises as `open_model`.

    Its operators stay what they are: channels first and FakeQuants too.
    """
    from autoquant.model.half import in_float32
    from autoquant.model.interface import select_interface

    return _normalized(in_float32(select_interface(loaded, inputs=inputs, outputs=outputs)), fusion, inputs)


def _normalized(frozen: Graph, fusion: Fusion, inputs: Sequence[str]) -> Graph:
    from autoquant.model.interface import check_runnable, needed_inputs
    from autoquant.model.normalize import check_fusion, normalize
    from autoquant.model.shapes import import_shapes

    check_fusion(frozen, fusion)
    import_shapes(frozen)  # whatever TensorFlow refuses is found here, not in the middle of a run
    graph = normalize(frozen, fusion)
    if not inputs:
        graph = replace(graph, inputs=needed_inputs(graph)).pruned()
    check_runnable(graph)
    return graph


def model_digest(path: Path) -> str:
    """SHA-256 (hex) of a file; of a SavedModel, of the names and bytes of its graph, variables and assets.

    Nothing is opened as a model. Raises ModelError where that is not there, or cannot be read.
    """
    check_file(path)
    try:
        return _digest(path)
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint=EXPECTED) from error


def _digest(path: Path) -> str:
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    parts = (*(path / "variables").glob("*"), *(path / "assets").glob("*"))
    for part in [path / "saved_model.pb", *sorted(parts)]:
        content = part.read_bytes()
        # Lengths tell what belongs to a name from what belongs to the bytes.
        digest.update(f"{part.relative_to(path).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
