"""The LiteRT target: one .tflite whose layers run on the integer kernels of LiteRT, as far as the plan wants it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from autoquant.calibration.plan import Plan, check_plan
from autoquant.calibration.record import LayerRecord
from autoquant.calibration.statistics import Statistics
from autoquant.errors import PlanError
from autoquant.files import write_bytes
from autoquant.model.fusion import EVERYTHING
from autoquant.model.layer import Layer, Survey
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.litert.survey import survey_lite
from autoquant.model.model import Model
from autoquant.quantization.affine import Affine, Array
from autoquant.quiet import no_progress
from autoquant.targets.base import NO_CORRECTIONS, Corrections, Int8File, OnStep
from autoquant.targets.litert_assignment import assigned
from autoquant.targets.litert_balance import Balance, Balancer, between
from autoquant.targets.litert_bias import add_to_biases
from autoquant.targets.litert_file import count_qdq_ops, prepared, quantized, with_constants
from autoquant.targets.litert_library import Int8
from autoquant.targets.litert_operators import INT8_ENDS, able, data_near
from autoquant.targets.litert_ranges import Ranges
from autoquant.targets.litert_weights import Weights


@dataclass(frozen=True, slots=True)
class LiteRTTarget:
    """Writes `<name>_int8.tflite`. `io` is the type of its inputs and outputs, float32 or int8."""

    name: ClassVar[str] = "litert"
    io: str = "float32"

    def __post_init__(self) -> None:
        if self.io not in ("float32", INT8_ENDS):
            raise ValueError(f"inputs and outputs are float32 or {INT8_ENDS}, not {self.io}")

    def file_name(self, model: str) -> str:
        """Name of the file that is saved for a model of this name."""
        return f"{model}_int8.tflite"

    def files(self, path: Path) -> tuple[Path, ...]:
        """The file alone."""
        return (path,)

    def lowered(self, model: Model) -> Model:
        """The model as the content of a .tflite: converted, where it is one of TensorFlow. Raises ModelError."""
        if isinstance(model.program, LiteGraph):
            return model
        from autoquant.model.litert.convert import convert

        return replace(model, program=convert(model.graph))

    def survey(self, model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Survey:
        """The operators that have a weight, and average pooling."""
        lite = _lite(model)
        found = survey_lite(lite, input_shapes)
        layers = [
            replace(layer, between=between(lite, lite.layers[layer.name])) if layer.can.balanceable else layer
            for layer in found.layers
        ]
        return replace(found, layers=tuple(layers))

    def tensors(self, model: Model, layers: Mapping[str, Layer]) -> Collection[str]:
        """All that an operator which can be INT8 reads or makes, by name."""
        lite = _lite(model)
        near = data_near(lite, able(lite), self.io)
        return {flatbuffer.tensor_name(lite.subgraph.tensors[index]) for index in near}

    def compiler(self, model: Model, layers: Mapping[str, Layer], statistics: Statistics) -> LiteRTCompiler:
        """What calibrates and saves .tflite files."""
        return LiteRTCompiler(_lite(model), layers, statistics, self.io)


def _lite(model: Model) -> LiteGraph:
    assert isinstance(model.program, LiteGraph), model.name
    return model.program


class LiteRTCompiler:
    """Makes INT8 .tflite files of one model."""

    def __init__(self, lite: LiteGraph, layers: Mapping[str, Layer], statistics: Statistics, io: str) -> None:
        self._lite = lite
        self._layers = layers
        self._io = io
        self._ranges = Ranges(lite, statistics)
        self._balancer = Balancer(lite, layers, statistics)
        self._weights = Weights(lite)

    def compile(
        self, plan: Plan, path: Path, on_step: OnStep = no_progress, *, corrections: Corrections = NO_CORRECTIONS
    ) -> Int8File:
        """Write the file of a plan. Raises as `Compiler.compile`."""
        check_plan(plan, self._layers)
        _check_possible(plan)
        balance = self._balancer.balance(plan)
        int8 = self._int8(plan, balance)
        on_step("calibrate")
        model = quantized(with_constants(self._prepared, self._constants(balance)), int8)
        add_to_biases(model, dict(self._biases(model, corrections)), corrections)
        write_bytes(path, flatbuffer.write(model))
        on_step("save")
        return Int8File(dict(self._record(model, plan, balance)), count_qdq_ops(model))

    def reference(self, plan: Plan) -> LiteGraph:
        """The float model with the constants of the plan's balanced layers. Raises as `make`."""
        check_plan(plan, self._layers)
        constants = self._constants(self._balancer.balance(plan))
        if not constants:
            return self._lite
        return replace(self._lite, content=flatbuffer.write(with_constants(self._prepared, constants)))

    def _constants(self, balance: Balance) -> Mapping[int, Array]:
        return {self._lite.tensors[name]: value for name, value in balance.constants.items()}

    def _biases(self, model: Any, names: Iterable[str]) -> Iterator[tuple[str, tuple[Any, int]]]:
        """Of layers the operator in the model (ModelT), and which of its inputs is the bias."""
        makers = {int(tensor): op for op in model.subgraphs[0].operators for tensor in op.outputs}
        for name in names:
            layer = self._layers[name]
            yield name, (makers[int(self._operator(layer).outputs[0])], self._kind(layer).bias)

    @cached_property
    def _prepared(self) -> Any:
        return prepared(flatbuffer.read(self._lite.content))

    def _int8(self, plan: Plan, balance: Balance) -> Int8:
        """What is INT8 under a plan, with all scales."""
        lite = self._lite
        operators = assigned(lite, lite.layers.keys() - plan.int8.keys(), self._io)
        activations = self._ranges.affines(plan, operators, self._io, balance.seen)
        weights = {}
        for name, settings in plan.int8.items():
            layer = self._layers[name]
            if layer.weight is not None:
                scale_d = activations[layer.activations[0]].scale
                weights[layer.weight] = self._weights.scales(layer, settings, scale_d, balance.constants)
        tensor_wise = {lite.layers[name] for name, settings in plan.int8.items() if not settings.channel_wise}
        channel_wise = {index: index not in tensor_wise for index in operators}
        return Int8(channel_wise, activations, weights, ends=self._io == INT8_ENDS)

    def _record(self, model: Any, plan: Plan, balance: Balance) -> Iterator[tuple[str, LayerRecord]]:
        """Scale and offset of each INT8 layer, as the model (ModelT) has them."""
        graph = model.subgraphs[0]
        makers = {int(tensor): op for op in graph.operators for tensor in op.outputs}
        for name, layer in self._layers.items():
            if name not in plan.int8:
                continue
            op = makers[int(self._operator(layer).outputs[0])]
            kind = self._kind(layer)
            weight = graph.tensors[op.inputs[kind.weight]] if layer.weight and kind.weight is not None else None
            scale_w = () if weight is None else tuple(map(float, weight.quantization.scale))
            for number, entry in enumerate(layer.records):
                data = graph.tensors[op.inputs[kind.data + number]].quantization
                affine = Affine(float(data.scale[0]), int(data.zeroPoint[0]))
                yield entry, LayerRecord(affine, scale_w, balance.factors.get(name, ()))

    def _operator(self, layer: Layer) -> Any:
        return self._lite.subgraph.operators[self._lite.layers[layer.name]]

    def _kind(self, layer: Layer) -> Any:
        return KINDS[flatbuffer.op_name(self._lite.model, self._operator(layer))]


def _check_possible(plan: Plan) -> None:
    """Raise PlanError where no .tflite can be as the plan says."""
    if plan.fp16_scales:
        what = "FORCE_FP16_QUANT rounds scales to float16, which is for Ascend"
        raise PlanError("fakequant_precision_mode", what, hint="set it to DEFAULT, or choose --target tensorflow")
    if plan.fusion != EVERYTHING:
        what = "operators are not to be fused, but LiteRT's converter fuses what it can"
        raise PlanError("do_fusion, skip_fusion_layers", what, hint="remove them, or choose --target tensorflow")
