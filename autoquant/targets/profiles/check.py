"""A saved INT8 .tflite against the profile of a device: operators, types and scales are read from the file alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.errors import ModelError, listed
from autoquant.formats.codec import encode
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.litert.load import load_as_is
from autoquant.targets.litert_operators import SHAPE_READERS
from autoquant.targets.profiles.profile import Profile
from autoquant.targets.profiles.table import open_profile

CONVERSIONS = frozenset({"DEQUANTIZE", "QUANTIZE"})
TYPES = schema.TensorType
QUANTIZED = frozenset({TYPES.INT8, TYPES.UINT8, TYPES.INT16})


@dataclass(frozen=True, slots=True)
class Violation:
    """What of a file a device could not take: `where` is an operator's first result, '' for the whole file."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class DeviceCheck:
    """A profile that a saved file was compared with: its name and device, how that was checked, and what breaks it."""

    profile: str
    device: str
    checked: str
    violations: tuple[Violation, ...]

    @property
    def verdict(self) -> str:
        """Whether the file keeps to the profile, in a few words."""
        if not self.violations:
            return f"the file keeps to profile {self.profile}"
        broken = listed([f"{one.where or 'file'}: {one.what}" for one in self.violations])
        return f"the file breaks profile {self.profile}: {broken}"

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return dict(encode(self))


def check_device(content: bytes, profile: Profile) -> DeviceCheck:
    """Compare a saved .tflite with a profile."""
    return DeviceCheck(profile.name, profile.device, profile.checked, violations(content, profile))


def check_int8_file(path: Path, name: str) -> DeviceCheck:
    """`check_device` of a file, with the profile of this name.

    Raises UsageError for one that there is not, ModelError where the file is no .tflite, or none that is INT8.
    """
    profile = open_profile(name)
    load_as_is(path)  # which says what is wrong with a file that is none
    content = path.read_bytes()
    if not is_quantized(content):
        hint = f"`autoquant inspect {path} --profile {name}` says what of it the device could take"
        raise ModelError(str(path), "is a float model, and there is nothing in INT8 to check", hint=hint)
    return check_device(content, profile)


def violations(content: bytes, profile: Profile) -> tuple[Violation, ...]:
    """Everything in the first subgraph of a .tflite that breaks a profile, in the order of its operators."""
    saved = _Saved(LiteGraph(content, (), (), {}), profile)
    return tuple(
        dict.fromkeys([*saved.ends(), *(one for index in range(len(saved.operators)) for one in saved.of(index))])
    )


def is_quantized(content: bytes) -> bool:
    """Whether a .tflite has operators that make integers with a scale."""
    graph = flatbuffer.read(content).subgraphs[0]
    made = (graph.tensors[tensor] for op in graph.operators for tensor in op.outputs)
    return any(tensor.type in QUANTIZED and _scales(tensor).size for tensor in made)


@dataclass(frozen=True)
class _Saved:
    """A saved file, and what it is for."""

    lite: LiteGraph
    profile: Profile

    @property
    def operators(self) -> Any:
        return self.lite.operators

    def ends(self) -> Iterator[Violation]:
        """Types of inputs and outputs, and open sizes."""
        graph = self.lite.subgraph
        for index in (*graph.inputs, *graph.outputs):
            kind = flatbuffer.type_name(graph.tensors[index]).lower()
            if kind not in self.profile.io and kind in ("float32", "int8"):
                yield Violation(self.lite.name_of(index), f"is {kind}, not {' or '.join(self.profile.io)}")
        if self.profile.fixed_sizes and any(None in flatbuffer.shape_of(tensor) for tensor in graph.tensors):
            yield Violation("", "a size of a tensor is open, and all must be fixed")

    def of(self, index: int) -> Iterator[Violation]:
        """What breaks the profile of one operator, whose first result it is named by."""
        op, kind = self.operators[index], self.lite.kind(index)
        name = self.lite.name_of(int(op.outputs[0])) if len(op.outputs) else ""
        if kind not in SHAPE_READERS:
            found = self._of_int8(index) if self._is_quantized(index) else self._of_float(index)
            yield from (Violation(name, f"{kind}: {what}") for what in found)

    def _is_quantized(self, index: int) -> bool:
        op = self.operators[index]
        types = [self.lite.subgraph.tensors[tensor].type for tensor in (*op.inputs, *op.outputs) if tensor >= 0]
        return TYPES.FLOAT32 not in types and not QUANTIZED.isdisjoint(types)

    def _of_float(self, index: int) -> Iterator[str]:
        """An operator in float, or a conversion."""
        op, kind = self.operators[index], self.lite.kind(index)
        tensors = [self.lite.subgraph.tensors[tensor] for tensor in (*op.inputs, *op.outputs) if tensor >= 0]
        # In other files than a .tflite these have tables of their own.
        another = not self.profile.takes_tflite and (self.profile.operators is None or kind in self.profile.operators)
        computes = kind not in CONVERSIONS and any(tensor.type == TYPES.FLOAT32 for tensor in tensors)
        if computes and self.profile.all_int8 and not another:
            yield "is in float, and nothing may be"

    def _of_int8(self, index: int) -> Iterator[str]:
        profile, op, kind = self.profile, self.operators[index], self.lite.kind(index)
        converts = kind in CONVERSIONS and not profile.takes_tflite
        if not converts and not (profile.all_int8 and profile.has_cpu):  # where the CPU runs INT8 as well
            if profile.operators is not None and kind not in profile.operators:
                yield "is none of the operators that the device takes"
            yield from (reason for limit in profile.limits if (reason := limit(self.lite, index)))
        weight = KINDS[kind].weight if kind in KINDS else None
        bias = KINDS[kind].bias if kind in KINDS else None
        for place, number in enumerate(op.inputs):
            if number >= 0 and place != bias:
                yield from self._of_tensor(kind, int(number), is_weight=place == weight)
        for number in op.outputs:
            yield from self._of_tensor(kind, int(number), is_weight=False)

    def _of_tensor(self, kind: str, number: int, *, is_weight: bool) -> Iterator[str]:
        profile, tensor = self.profile, self.lite.subgraph.tensors[number]
        scales, name = _scales(tensor), self.lite.name_of(number)
        if tensor.type not in QUANTIZED or not scales.size:
            return
        if is_weight and scales.size > 1 and not profile.may_have_channels(kind):
            yield f"its weight has {scales.size} scales, and may have one"
        if profile.symmetric and not is_weight and np.any(tensor.quantization.zeroPoint):
            yield f"'{name}' has an offset, and none may"
        if profile.power_of_two and not np.all(np.frexp(scales)[0] == 0.5):
            yield f"a scale of '{name}' is no power of two"
        if tensor.type == TYPES.INT16 and profile.int16 is not None and kind not in profile.int16:
            yield f"'{name}' has 16 bits, which it may not have there"


def _scales(tensor: Any) -> Any:
    quantization = tensor.quantization
    given = None if quantization is None else quantization.scale
    return np.asarray([] if given is None else given, np.float64)
