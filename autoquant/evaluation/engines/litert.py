"""Runs models in LiteRT on the CPU: .tflite files, and graphs of TensorFlow converted to such."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.engine import fixed_batch, run_fixed
from autoquant.memory import trim_memory
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import sentence
from autoquant.model.model import Program
from autoquant.quiet import stderr_held_back

CACHE = 20 * 2**20
"""Bytes of the largest tensor of samples that run together.

Where operators hand large batches on through main memory, they wait for it: MobileNetV2 of 224 x 224 in a simulation,
whose quantizers do little else, took 1.48 times as long with 50 samples (240 MB) as with 4 (19 MB), in one run.
"""


@dataclass(frozen=True, slots=True)
class LiteRTEngine:
    """The LiteRT interpreter with its default kernels, XNNPACK wherever that has one.

    `reference` takes the plain kernels instead that define what each operator computes, slowly.
    """

    name: ClassVar[str] = "litert"
    threads: int = field(default_factory=cores)
    reference: bool = False

    @property
    def version(self) -> str:
        """Of LiteRT."""
        return f"litert {version('ai-edge-litert')}"

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> LiteRTRunner:
        """Open a float model; one of TensorFlow is converted, which takes longer the larger it is.

        Raises ModelError where it has no tensor of a name in `fetches`, or cannot be converted.
        """
        content = fetching(graph, fetches) if isinstance(graph, LiteGraph) else _converted(graph, fetches)
        return LiteRTRunner(
            content, graph.inputs, fetches or graph.outputs, self.threads, reference=self.reference, cut=not fetches
        )

    def open_file(self, path: Path, graph: Program) -> LiteRTRunner:
        """Open a saved .tflite."""
        content = path.read_bytes()
        return LiteRTRunner(content, graph.inputs, graph.outputs, self.threads, reference=self.reference)


def largest_tensor(details: Iterable[Mapping[str, Any]]) -> int:
    """Bytes that the largest tensor has for each sample, by what an interpreter tells of tensors; 1 at least."""
    open_ones = (one for one in details if len(one["shape_signature"]) and one["shape_signature"][0] == -1)
    sizes = (math.prod(map(int, one["shape"])) * np.dtype(one["dtype"]).itemsize for one in open_ones)
    return max(sizes, default=1) or 1


def fetching(graph: LiteGraph, fetches: Sequence[str] | None) -> bytes:
    """The .tflite with these tensors as its outputs, in their order; without any, with its own.

    Operators then run as they always do, where an interpreter that keeps all tensors runs without XNNPACK. Raises
    ModelError where there is no such tensor.
    """
    if not fetches:
        return graph.content
    for name in fetches:
        if name not in graph.tensors:
            raise ModelError(name, "is not a tensor of the .tflite", hint="`autoquant inspect` lists the layers")
    return LiteBuilder(graph).write({name: graph.tensors[name] for name in fetches})


def _converted(graph: Program, fetches: Sequence[str] | None) -> bytes:
    from autoquant.model.graph import Graph
    from autoquant.model.litert.convert import convert

    assert isinstance(graph, Graph)
    return convert(replace(graph, outputs=tuple(fetches)) if fetches else graph).content


class LiteRTRunner:
    """An interpreter with one model; `cut` says that a row of what it fetches is a sample, as of outputs.

    Tensors inside the model, which are not cut, are views of the interpreter's memory, where a batch takes one run: it
    does not run again while any is held. They are many, and copying them takes as long as making them.
    Inputs of INT8 take real numbers as well, and outputs of INT8 are given as such, by the scales in the file.
    """

    def __init__(
        self,
        content: bytes,
        inputs: Sequence[str],
        fetches: Sequence[str],
        threads: int,
        *,
        reference: bool = False,
        cut: bool = True,
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._fetches = tuple(fetches)
        self._cut = cut
        self._size = len(content)
        self._shapes: list[tuple[int, ...]] = []
        try:
            self._interpreter: Any = Interpreter(
                model_content=content,
                num_threads=threads,
                experimental_op_resolver_type=OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO,
            )
            signature = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise _refused("does not open", error, "another version of ai-edge-litert may run it") from error
        given, made = signature.get_input_details(), signature.get_output_details()
        self._inputs = {name: Tensor.of(given[name]) for name in inputs}
        self._outputs = [Tensor.of(made[name]) for name in fetches]
        self._batch = fixed_batch(given[name]["shape_signature"].tolist() for name in inputs)
        self._most = max(1, CACHE // largest_tensor(self._interpreter.get_tensor_details()))

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one batch."""
        feeds = [tensor.raw(inputs[name]) for name, tensor in self._inputs.items()]
        viewed = not self._cut and self._batch in (None, len(feeds[0]))
        batch = self._together(len(feeds[0])) if self._batch is None and self._cut else self._batch
        arrays = run_fixed(partial(self._run, viewed=viewed), feeds, batch, cut=self._cut)
        return dict(zip(self._fetches, arrays, strict=True))

    def kernels(self) -> Mapping[str, Sequence[str]]:
        """Names of the operators that XNNPACK runs ('xnnpack') and that LiteRT's own kernels run ('builtin').

        They are known once a batch has been run.
        """
        ops = self._interpreter._get_ops_details()
        plain = [op for op in ops if op["op_name"] != "DELEGATE"]
        delegated = {index for op in ops if op["op_name"] == "DELEGATE" for index in _within(op, plain)}
        return {
            "xnnpack": [op["op_name"] for op in plain if op["index"] in delegated],
            "builtin": [op["op_name"] for op in plain if op["index"] not in delegated],
        }

    def close(self) -> None:
        """Free the interpreter, and give back its copy of the weights."""
        self._interpreter = None
        trim_memory(self._size)

    def _together(self, samples: int) -> int:
        """How many samples to run at once, of as many: runs of one size, whose largest tensor stays in the cache."""
        return math.ceil(samples / math.ceil(samples / self._most)) if samples else 0

    def _run(self, feeds: Sequence[Array], *, viewed: bool) -> list[Array]:
        try:
            self._resize([feed.shape for feed in feeds])
            for tensor, feed in zip(self._inputs.values(), feeds, strict=True):
                self._interpreter.set_tensor(tensor.index, feed)
            self._interpreter.reset_all_variables()  # a fused LSTM would go on where the last batch ended
            self._interpreter.invoke()
            if viewed:
                return [tensor.real(self._interpreter.tensor(tensor.index)()) for tensor in self._outputs]
            return [tensor.real(self._interpreter.get_tensor(tensor.index)) for tensor in self._outputs]
        except MemoryError as error:
            raise TrialError("LiteRT", "out of memory", hint="a smaller --batch-size may help") from error
        except (ValueError, RuntimeError) as error:
            self._shapes = []
            raise _refused("does not run", error, "check the input data, or try --batch-size 1") from error

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        """Make room for inputs of these shapes, where the last ones were others."""
        if shapes == self._shapes:
            return
        for tensor, shape in zip(self._inputs.values(), shapes, strict=True):
            self._interpreter.resize_tensor_input(tensor.index, shape, strict=True)
        with stderr_held_back():  # a process is told once that there is XNNPACK
            self._interpreter.allocate_tensors()
        self._shapes = shapes


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of an interpreter; real = (raw - zero) * scale where there is a scale."""

    index: int
    dtype: np.dtype[Any]
    scale: float | None
    zero: int

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Tensor:
        """As an interpreter describes it."""
        dtype, found = np.dtype(details["dtype"]), details["quantization_parameters"]
        quantized = dtype.kind in "iu" and len(found["scales"]) == 1
        scale, zero = (float(found["scales"][0]), int(found["zero_points"][0])) if quantized else (None, 0)
        return cls(int(details["index"]), dtype, scale, zero)

    def raw(self, values: Array) -> Array:
        """Real numbers as the integers that stand for them; other values as they are."""
        if self.scale is None or values.dtype.kind != "f":
            return values
        limits = np.iinfo(self.dtype)
        steps: Array = np.clip(np.rint(values / self.scale) + self.zero, limits.min, limits.max)
        return steps.astype(self.dtype)

    def real(self, values: Array) -> Array:
        """The real numbers, float32, that integers stand for; without a scale the values as they are."""
        if self.scale is None:
            return values
        real: Array = (values.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)
        return real


def _within(delegate: Mapping[str, Any], plain: Sequence[Mapping[str, Any]]) -> set[int]:
    """Indices of the operators that a delegate stands for: those between its inputs and its outputs."""
    makers = {int(output): op for op in plain for output in op["outputs"]}
    given = {int(tensor) for tensor in delegate["inputs"]}
    found: set[int] = set()
    stack = [int(tensor) for tensor in delegate["outputs"]]
    while stack:
        tensor = stack.pop()
        if tensor in makers and tensor not in given and makers[tensor]["index"] not in found:
            found.add(makers[tensor]["index"])
            stack += [int(source) for source in makers[tensor]["inputs"]]
    return found


def _refused(what: str, error: Exception, hint: str) -> TrialError:
    return TrialError("LiteRT", f"the model {what}: {sentence(error)}", hint=hint)
