"""GraphEvaluator: an evaluator that calibrates with raw numbers from files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.amct.evaluator import AutoCalibrationEvaluatorBase
from autoquant.array import Array
from autoquant.errors import DataError, UsageError, did_you_mean

FLOATS, INTEGERS = ("float16", "float32", "float64"), ("int8", "int16", "int32", "int64")
TYPES = (*FLOATS, *INTEGERS, *(f"u{name}" for name in INTEGERS), "bool")
"""What a file of numbers may hold, in the byte order of this machine."""
OWN = "give an evaluator of your own with evaluate() and metric_eval()"


class GraphEvaluator(AutoCalibrationEvaluatorBase):
    """Calibrates with raw numbers from files; it cannot evaluate.

    Args:
        data_dir: a folder for each input, joined by ';': "data/in1/;data/in2/". Its files `*.bin`, in ascending order
            of their names, are the batches of that input; each holds one array of the input's shape, row by row.
        input_shape: name and shape of each input, in the order of the folders: "input:32,224,224,3;boxes:32,4".
        data_types: what the files of each input hold: "float32;float64".

    Raises:
        UsageError: one of the three cannot be read, or they are of different lengths.
        DataError: a folder is missing or empty, folders differ in their number of files, a file has another size.
    """

    def __init__(self, data_dir: str, input_shape: str, data_types: str) -> None:
        folders, shapes, types = (_parts(text) for text in (data_dir, input_shape, data_types))
        if not len(folders) == len(shapes) == len(types):
            what = f"names {len(shapes)} inputs, data_dir {len(folders)} folders and data_types {len(types)} types"
            raise UsageError("input_shape", what, hint="give as many of each, joined by ';'")
        self._inputs = [_read(Path(folder), *rest) for folder, *rest in zip(folders, shapes, types, strict=True)]
        first = self._inputs[0]
        for place, other in enumerate(self._inputs[1:], start=1):
            if other.name in {one.name for one in self._inputs[:place]}:
                raise UsageError("input_shape", f"'{other.name}' appears twice", hint="name each input once")
            if len(other.files) != len(first.files):
                folder, batches = str(other.files[0].parent), len(first.files)
                what = f"holds {len(other.files)} files for '{other.name}', but there are {batches} for '{first.name}'"
                raise DataError(folder, what, hint="each input needs as many files as there are batches")

    @property
    def batch_num(self) -> int:
        """How many batches there are: files of each input."""
        return len(self._inputs[0].files)

    def batches(self, batch_num: int) -> Iterator[dict[str, Array]]:
        """The first batches, each as what a session is fed: arrays by the names of tensors.

        Raises DataError where there are fewer.
        """
        if batch_num > self.batch_num:
            what = f"holds {self.batch_num} files, but batch_num is {batch_num}"
            raise DataError(str(self._inputs[0].files[0].parent), what, hint="give more files, or a smaller batch_num")
        for number in range(batch_num):
            yield {f"{one.name}:0": one.load(number) for one in self._inputs}

    def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
        """Run the outputs once for every batch, after initializing the graph's variables.

        Raises UsageError where the graph has no such input, or one of another shape, or another is not fed.
        """
        import tensorflow as tf

        placeholders = [op.name for op in graph.get_operations() if op.type.startswith("Placeholder")]
        for one in self._inputs:
            if one.name not in placeholders:
                hint = did_you_mean(one.name, placeholders, otherwise=f"its inputs are {', '.join(placeholders)}")
                raise UsageError("input_shape", f"the graph has no input '{one.name}'", hint=hint)
            shape = graph.get_tensor_by_name(f"{one.name}:0").shape
            if not shape.is_compatible_with(one.shape):
                what = f"gives '{one.name}' the shape {one.shape}, but in the graph it has {shape}"
                raise UsageError("input_shape", what, hint="give the shape of one batch as the graph takes it")
        for name in _needed(graph, outputs):
            if name not in {one.name for one in self._inputs}:
                what = f"says nothing of '{name}': you must feed a value for placeholder tensor '{name}'"
                raise UsageError("input_shape", what, hint="add its shape, folder and type")
        with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for batch in self.batches(self.batch_num):
                session.run(list(outputs), batch)

    def evaluate(self, graph: Any, outputs: Sequence[str]) -> Any:
        """Raise UsageError: there is nothing to judge by."""
        raise UsageError("GraphEvaluator", "only calibrates: it has no metric", hint=OWN)

    def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, Any]:
        """Raise UsageError: there is nothing to judge by."""
        raise UsageError("GraphEvaluator", "only calibrates: it has no requirement", hint=OWN)


def load_data(
    input_shape: Mapping[str, Sequence[int]], data_dir: Sequence[str], data_types: Sequence[str], batch_num: int
) -> Iterator[dict[str, Array]]:
    """Read batches of raw numbers, as evaluators made for AMCT's command line do.

    Args:
        input_shape: the shape of a batch by the name of the input, such as {"input:0": [32, 224, 224, 3]}.
        data_dir: a folder of .bin files for each input, in the same order.
        data_types: what the files of each input hold, such as "float32".
        batch_num: how many batches there are to be.

    Yields what a session is fed. Raises as GraphEvaluator, and DataError where there are fewer files.
    """
    shapes = ";".join(f"{name}:{','.join(map(str, shape))}" for name, shape in input_shape.items())
    yield from GraphEvaluator(";".join(data_dir), shapes, ";".join(data_types)).batches(batch_num)


@dataclass(frozen=True, slots=True)
class _Input:
    """One input and its files, one a batch."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    files: tuple[Path, ...]

    def load(self, number: int) -> Array:
        """The array of one batch."""
        return np.fromfile(self.files[number], self.dtype).reshape(self.shape)


def _read(folder: Path, spec: str, kind: str) -> _Input:
    """One input by its folder, its name and shape, and the type of its numbers. Raises UsageError and DataError."""
    name, _, sizes = spec.rpartition(":")
    if not name or not all(size.strip().isdecimal() and int(size) for size in sizes.split(",")):
        what = f"cannot read '{spec}'"
        raise UsageError("input_shape", what, hint="give a name and positive sizes, such as input:32,224,224,3")
    if kind not in TYPES:
        hint = did_you_mean(kind, TYPES, otherwise=f"it can be {', '.join(TYPES)}")
        raise UsageError("data_types", f"unknown '{kind}'", hint=hint)
    if not folder.is_dir():
        raise DataError(str(folder), "there is no such folder", hint=f"put the files of '{name}' there")
    files = tuple(sorted(path for path in folder.iterdir() if path.suffix == ".bin"))
    if not files:
        raise DataError(str(folder), "holds no .bin file", hint=f"put the files of '{name}' there")
    name, shape, dtype = name.removesuffix(":0"), tuple(int(size) for size in sizes.split(",")), np.dtype(kind)
    expected = math.prod(shape) * dtype.itemsize
    for path in files:
        if (size := path.stat().st_size) != expected:
            shown = ",".join(map(str, shape))
            what = f"holds {size} bytes, but {kind} of shape {shown} for '{name}' takes {expected}"
            raise DataError(str(path), what, hint="each file must hold exactly one array of that shape")
    return _Input(name, shape, dtype, files)


def _parts(text: str) -> list[str]:
    """What stands between the ';'; one at the end is nothing."""
    return [part.strip() for part in text.strip().removesuffix(";").split(";")]


def _needed(graph: Any, outputs: Sequence[str]) -> list[str]:
    """The placeholders that the outputs depend on, and that have no default."""
    stack = [graph.get_tensor_by_name(output if ":" in output else f"{output}:0").op for output in outputs]
    types: dict[str, str] = {}
    while stack:
        op = stack.pop()
        if op.name not in types:
            types[op.name] = op.type
            stack.extend([*(tensor.op for tensor in op.inputs), *op.control_inputs])
    return [name for name, kind in types.items() if kind in ("Placeholder", "PlaceholderV2")]
