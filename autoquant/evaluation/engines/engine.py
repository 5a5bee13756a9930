"""What an engine is: it executes models so that they can be scored, those of a fixed batch size on any batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.model.model import InputSpec, Program

BATCH_BYTES = 1 << 25
"""Bytes of outputs in a batch, at most, where a single sample has no more: whatever compares them takes several times
as many."""
Run = Callable[[Sequence[Array]], list[Array]]
"""Gives what a model computes of one batch, arrays in, arrays out."""


class Runner(Protocol):
    """An opened model."""

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Tensors by name for one batch of inputs by name.

        A model of a fixed batch size is run as often as it takes. May be called in any thread, in one at a time; the
        next call does not change what this one gave. But tensors asked for by name may be views of memory that is used
        again, and must not be held when it is called. Raises TrialError where it cannot be run.
        """
        ...

    def close(self) -> None:
        """Give back its memory."""
        ...


@dataclass(frozen=True, slots=True)
class Renamed:
    """A runner whose tensors have other names: `names` gives for each the one that the runner knows.

    `inputs` likewise for its inputs, where these have other names too.
    """

    runner: Runner
    names: Mapping[str, str]
    inputs: Mapping[str, str] | None = None

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one batch."""
        if self.inputs is not None:
            inputs = {known: inputs[name] for name, known in self.inputs.items()}
        found = self.runner(inputs)
        return {name: found[known] for name, known in self.names.items()}

    def close(self) -> None:
        """Give back its memory."""
        self.runner.close()

    def kernels(self) -> Mapping[str, Sequence[str]]:
        """Those of the runner."""
        return kernels_of(self.runner)


def kernels_of(runner: Runner) -> Mapping[str, Sequence[str]]:
    """The operators that ran by kind of kernel, of a runner of LiteRT once a batch has been run; nothing of others."""
    found = getattr(runner, "kernels", None)
    return found() if found else {}


class Engine(Protocol):
    """Opens models. A score belongs to the engine it was measured on."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def version(self) -> str:
        """The library that computes, and its version: 'tensorflow 2.21.0'."""
        ...

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> Runner:
        """Open a float model; fetch its outputs, or any tensors of it.

        For a model of a fixed batch size, tensors asked for also hold what was repeated to fill the last batch.
        """
        ...

    def open_file(self, path: Path, graph: Program) -> Runner:
        """Open what a target saved of `graph`, with the graph's inputs and outputs."""
        ...


def run_batch(runner: Runner, batch: Batch) -> Outputs:
    """A model's outputs for one batch, one row a sample. Raises ModelError where an output is something else."""
    outputs = runner(batch.inputs)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != len(batch):
            what = f"has shape {array.shape} for a batch of {len(batch)}; its first axis must be the batch"
            raise ModelError(f"output '{name}'", what, hint="choose another output with --outputs")
    return outputs


def fixed_batch(shapes: Iterable[Sequence[int | None]]) -> int | None:
    """The batch size that the first dimensions of the inputs fix, or None where they leave it open (None or -1)."""
    return next((shape[0] for shape in shapes if len(shape) and shape[0] is not None and shape[0] >= 0), None)


def bounded_batch(batch_size: int, sample_bytes: int, inputs: Sequence[InputSpec]) -> int:
    """Samples of a batch: `batch_size`, or fewer whose outputs have BATCH_BYTES; one, or what a model fixes, at least.

    >>> bounded_batch(50, 512 * 512 * 20 * 4, [])
    1
    """
    fixed = fixed_batch(spec.shape for spec in inputs if spec.shape) or 1
    most = BATCH_BYTES // max(sample_bytes, 1) // fixed * fixed
    return min(batch_size, max(most, fixed))


def of_bounded_outputs(runner: Runner, batches: Iterable[Batch], inputs: Sequence[InputSpec]) -> Iterator[Batch]:
    """The same samples, fewer at a time where what is computed for one, of which the first tells, is large."""
    sample_bytes: int | None = None
    for batch in batches:
        if sample_bytes is None:
            sample_bytes = bytes_of(runner(batch.part(slice(1)).inputs))
        size = bounded_batch(len(batch), sample_bytes, inputs)
        for start in range(0, len(batch), size):
            yield batch.part(slice(start, start + size))


def bytes_of(outputs: Outputs) -> int:
    """Bytes of a batch."""
    return sum(array.nbytes for array in outputs.values())


def run_fixed(run: Run, feeds: Sequence[Array], batch: int | None, *, cut: bool) -> list[Array]:
    """Run a model that takes batches of exactly `batch` (None: of any size) as often as it takes.

    The last sample is repeated to fill the last batch. `cut` says that a row of a result is a sample, as of outputs:
    then rows of repeated samples are taken away, from results that have as many rows as samples were run; scalars are
    those of the first batch.
    """
    size = len(feeds[0])
    if batch is None or batch == size:
        return run(feeds)
    chosen = np.minimum(np.arange(-(-size // batch) * batch), size - 1).reshape(-1, batch)
    parts = [run([feed[rows] for feed in feeds]) for rows in chosen]
    joined = [np.concatenate(arrays) if arrays[0].ndim else arrays[0] for arrays in zip(*parts, strict=True)]
    if cut:  # an inner tensor may have its samples on another axis
        joined = [rows[:size] if rows.ndim and len(rows) == chosen.size else rows for rows in joined]
    return joined
