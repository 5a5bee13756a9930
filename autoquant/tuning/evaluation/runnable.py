"""Any model, float or INT8 and by whichever tool, opened to be run as its file is, on the data of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from autoquant.array import Array
from autoquant.errors import ModelError, listed
from autoquant.evaluation.engines.engine import Engine, Renamed, Runner, kernels_of
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.feed import feed_texts, feed_values
from autoquant.model.model import FROZEN, InputSpec, Model, OutputSpec, Shape, is_lite
from autoquant.tuning.builder import saved_front
from autoquant.tuning.evaluation.names import Known, pair_names, sample_shape
from autoquant.tuning.inputs import front_runner
from autoquant.tuning.study.choices import TENSORFLOW
from autoquant.tuning.study.model_request import ModelRequest


@dataclass(frozen=True)
class Runnable:
    """A model that is open, called `name`; `engine` is the runtime that its file is for."""

    name: str
    model: Model
    engine: Engine

    @cached_property
    def inputs(self) -> Known:
        """What the data has for it."""
        return {one.name: (one.dtype.kind, sample_shape(one.shape)) for one in self.model.data_inputs}

    @cached_property
    def outputs(self) -> Known:
        """What it computes, of one kind: an output of INT8 is given as the real numbers that it stands for."""
        return {one.name: ("f", sample_shape(one.shape)) for one in self._output_specs()}

    def open(self) -> Runner:
        """Open it. Raises TrialError or ModelError where it is not run."""
        runner: Runner = self.engine.open_graph(self.model.program)
        if self.model.front is None:
            return runner
        return _Fed(runner, front_runner(self.model.front, self.model))

    def like(self, other: Runnable, outputs: Sequence[str]) -> Matched:
        """The same model, fed and read by the names of another, as far as its `outputs` go. Raises ModelError.

        Names are paired where they are the same, but for what a converter adds, or the only ones, or the only ones of
        their kind and shape.
        """
        inputs = self._paired("input", other.inputs, self.inputs, other, [*other.inputs])
        if missing := [name for name in self.inputs if name not in inputs.values()]:
            what = f"takes {listed(missing)}, which {other.name} does not"
            raise ModelError(self.name, what, hint="compare models of the same data")
        return Matched(self, inputs, self._paired("output", other.outputs, self.outputs, other, outputs))

    def _paired(self, what: str, wanted: Known, own: Known, other: Runnable, needed: Sequence[str]) -> dict[str, str]:
        found = pair_names(wanted, own)
        if (missing := next((name for name in needed if name not in found), None)) is not None:
            known = listed([f"'{name}' {_shape_text(shape)}" for name, (_, shape) in own.items()])
            hint = f"name it alike where the model is converted; its {what}s are {known}"
            raise ModelError(self.name, f"which {what} is '{missing}' of {other.name} cannot be told", hint=hint)
        return {name: found[name] for name in needed}

    def _output_specs(self) -> tuple[OutputSpec, ...]:
        from autoquant.model.litert.graph import LiteGraph

        if isinstance(self.model.program, LiteGraph):
            return self.model.program.output_specs()
        from autoquant.model.shapes import output_specs

        return output_specs(self.model.graph)


@dataclass(frozen=True)
class Matched:
    """A model under the names of another: name there -> own name, of inputs and of outputs."""

    own: Runnable
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def data_model(self) -> Model:
        """What data is opened for: its own types and shapes under the names of the other."""
        names = {own: name for name, own in self.inputs.items()}
        specs = {one.name: one for one in self.own.model.data_inputs}
        renamed = tuple(replace(specs[own], name=name) for own, name in names.items())
        return replace(self.own.model, inputs=renamed, front=None)

    def open(self) -> Runner:
        """Open it under these names. Raises as `Runnable.open`."""
        return Renamed(self.own.open(), self.outputs, self.inputs)


@dataclass(frozen=True)
class _Fed:
    """A runner that takes what is in front of it makes of the data."""

    runner: Runner
    front: Callable[[Mapping[str, Array]], Mapping[str, Array]]

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return self.runner(self.front(inputs))

    def close(self) -> None:
        self.runner.close()

    def kernels(self) -> Mapping[str, Sequence[str]]:
        """Those of the model itself."""
        return kernels_of(self.runner)


def _shape_text(shape: Shape | None) -> str:
    return "" if shape is None else f"({'x'.join('?' if size is None else str(size) for size in shape)})"


def same_data(one: Sequence[InputSpec], other: Sequence[InputSpec]) -> bool:
    """Whether batches for these inputs are batches for the others, of the same names."""
    return {spec.name: (spec.dtype, sample_shape(spec.shape)) for spec in one} == {
        spec.name: (spec.dtype, sample_shape(spec.shape)) for spec in other
    }


def open_runnable(path: Path, name: str, request: ModelRequest, *, first: bool = True) -> Runnable:
    """Open the model of a file; the request's inputs and outputs are for those of TensorFlow. Raises ModelError.

    Only the `first` must have the signature where it has no choice of several.
    """
    if is_lite(path):
        from autoquant.model.litert.load import load_as_is, signatures

        chosen = request.signature if request.signature and (first or len(signatures(path)) > 1) else None
        model = load_as_is(path, signature=chosen)
        return Runnable(name, replace(model, front=saved_front(path, model.inputs)), open_engine("litert"))
    engine, opened = open_engine("tensorflow"), None
    if path.is_file() and path.suffix.lower() == FROZEN and path.name != "saved_model.pb":
        from autoquant.targets.int8_graph import open_int8_graph

        feed = feed_values(feed_texts(request.feed))
        opened = open_int8_graph(path, outputs=request.outputs, feed=feed, trust=request.trust_model)
    if opened is None:
        own = request if path.is_dir() else replace(request, signature="")
        opened = own.open_model(path, TENSORFLOW)
    return Runnable(name, opened, engine)
