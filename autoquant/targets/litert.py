"""The LiteRT target: one .tflite whose layers run on the integer kernels of LiteRT, as far as the plan wants it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from autoquant.calibration.plan import Plan, check_plan
from autoquant.calibration.record import LayerRecord, Record
from autoquant.calibration.statistics import Statistics
from autoquant.errors import PlanError
from autoquant.files import write_bytes
from autoquant.model.layer import Layer, Survey
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS, Kind
from autoquant.model.litert.survey import survey_lite
from autoquant.model.model import EVERYTHING, Model
from autoquant.quiet import no_progress
from autoquant.targets.base import NO_CORRECTIONS, Corrections, Int8File, OnStep
from autoquant.targets.litert_assignment import integer_operators
from autoquant.targets.litert_balance import Balance, tensors_between
from autoquant.targets.litert_calibration import LiteCalibrator, LiteScales, SharedScale, TensorBetween
from autoquant.targets.litert_file import (
    add_to_biases,
    count_qdq_ops,
    fix_batch,
    prepare,
    quantize,
    replace_weights,
    with_constants,
)
from autoquant.targets.litert_kernels import affine_of
from autoquant.targets.litert_library import IntegerOperator, Integers, Known
from autoquant.targets.litert_operators import INT8_ENDS, data_near, quantizable
from autoquant.targets.profiles.fit import check_possible, for_profile, narrowed
from autoquant.targets.profiles.profile import Profile


@dataclass(frozen=True, slots=True)
class LiteRTTarget:
    """Writes `<name>_int8.tflite`. `io` is the type of its inputs and outputs, float32 or int8.

    With a `profile` the file is for that device: what it cannot take stays in float, and settings are narrowed.
    """

    name: ClassVar[str] = "litert"
    io: str = "float32"
    profile: Profile | None = None

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
        lite = model.program
        if not isinstance(lite, LiteGraph):
            from autoquant.model.litert.convert import convert

            lite = convert(model.graph)
        return replace(model, program=lite if self.profile is None else for_profile(lite, self.profile))

    def survey(self, model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Survey:
        """The operators that have a weight, and average pooling; raises where the device has no way to run others."""
        if self.profile is not None:
            check_possible(_lite(model), self.profile)
        return self.look(model, input_shapes)

    def look(self, model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Survey:
        """The same of a model that the device may have no way to run."""
        lite = _lite(model)
        found = survey_lite(lite, input_shapes)
        layers = [
            replace(layer, between=tensors_between(lite, lite.layers[layer.name])) if layer.can.balanceable else layer
            for layer in found.layers
        ]
        if self.profile is not None:
            layers = [narrowed(layer, lite.kind(lite.layers[layer.name]), self.profile) for layer in layers]
        return replace(found, layers=tuple(layers))

    def tensors(self, model: Model, layers: Mapping[str, Layer]) -> Collection[str]:
        """All that an operator which can be INT8 reads or makes, by name."""
        lite = _lite(model)
        near = data_near(lite, quantizable(lite), self.io)
        return {lite.name_of(index) for index in near}

    def compiler(self, model: Model, layers: Mapping[str, Layer], statistics: Statistics) -> LiteRTCompiler:
        """The compiler of .tflite files."""
        fixed = self.profile is not None and self.profile.fixed_sizes
        return LiteRTCompiler(_lite(model), layers, statistics, self.io, one_sample=fixed)


def _lite(model: Model) -> LiteGraph:
    assert isinstance(model.program, LiteGraph), model.name
    return model.program


class LiteRTCompiler:
    """Writes INT8 .tflite files of one model; with `one_sample` their batch is 1 where that of the model is open."""

    def __init__(
        self,
        lite: LiteGraph,
        layers: Mapping[str, Layer],
        statistics: Statistics,
        io: str,
        *,
        one_sample: bool = False,
    ) -> None:
        self._lite = lite
        self._layers = layers
        self.io = io
        self._one_sample = one_sample
        self._calibrator = LiteCalibrator(lite, layers, statistics)
        self._known: Known = {}

    def compile(
        self, plan: Plan, path: Path, on_step: OnStep = no_progress, *, corrections: Corrections = NO_CORRECTIONS
    ) -> Int8File:
        """Write the file of a plan. Raises as `Compiler.compile`."""
        check_plan(plan, self._layers)
        _check_possible(plan)
        operators = integer_operators(self._lite, plan, self.io)
        scales = self._calibrator.scales(plan, operators, self.io, corrections.activations)
        on_step("calibrate")
        model = quantize(self._float_model(scales.balance), self._integers(plan, operators, scales), self._known)
        layers = self._operators(model, plan)
        replace_weights(model, layers, corrections.weights)
        add_to_biases(model, layers, corrections.biases)
        if self._one_sample:
            fix_batch(model)
        write_bytes(path, flatbuffer.write(model))
        on_step("save")
        return Int8File(dict(self._record(model, layers, scales.balance)), count_qdq_ops(model))

    def record(self, plan: Plan) -> Record:
        """Scale and offset of every INT8 layer, before there is a file. Raises as `compile`."""
        check_plan(plan, self._layers)
        _check_possible(plan)
        scales = self._calibrator.scales(plan, integer_operators(self._lite, plan, self.io), self.io)
        record: dict[str, LayerRecord] = {}
        for name, layer in self._layers.items():
            if name in plan.int8:
                bits = plan.int8[name].activation_bits
                scale_w = () if layer.weight is None else tuple(map(float, scales.weights[layer.weight].reshape(-1)))
                for entry, tensor in zip(layer.records, layer.activations, strict=True):
                    own = scales.activations[tensor] if bits == 8 else scales.wide[tensor]
                    record[entry] = LayerRecord(own, scale_w, scales.balance.factors.get(name, ()))
        return record

    def reference(self, plan: Plan) -> LiteGraph:
        """The float model with the constants of the plan's balanced layers. Raises as `compile`."""
        check_plan(plan, self._layers)
        balance = self._calibrator.balance(plan)
        if not balance.constants:
            return self._lite
        return replace(self._lite, content=flatbuffer.write(self._float_model(balance)))

    def between(self, plan: Plan) -> tuple[TensorBetween, ...]:
        """The tensors that a plan has in INT8 and no layer reads. Raises as `compile`."""
        check_plan(plan, self._layers)
        return self._calibrator.between(plan, integer_operators(self._lite, plan, self.io), self.io)

    def shared_scales(self, plan: Plan) -> Mapping[str, SharedScale]:
        """The tensors that a plan has in INT8, by name, as they were calibrated. Raises as `compile`."""
        check_plan(plan, self._layers)
        return self._calibrator.shared_scales(plan, integer_operators(self._lite, plan, self.io), self.io)

    def _integers(self, plan: Plan, operators: Mapping[int, int], scales: LiteScales) -> Integers:
        tensor_wise = {self._lite.layers[name] for name, settings in plan.int8.items() if not settings.channel_wise}
        own = {index: IntegerOperator(bits, index not in tensor_wise) for index, bits in operators.items()}
        return Integers(own, scales.activations, scales.wide, scales.weights, ends=self.io == INT8_ENDS)

    def _float_model(self, balance: Balance) -> Any:
        """The float model (ModelT), balanced."""
        constants = {self._lite.tensors[name]: value for name, value in balance.constants.items()}
        return with_constants(self._prepared, constants)

    @cached_property
    def _prepared(self) -> Any:
        return prepare(flatbuffer.read(self._lite.content))

    def _operators(self, model: Any, plan: Plan) -> Mapping[str, tuple[Any, Kind]]:
        """The operator (OperatorT) that makes the result of each INT8 layer in a model (ModelT), and its kind."""
        makers = {int(tensor): op for op in model.subgraphs[0].operators for tensor in op.outputs}
        places = {name: self._lite.layers[name] for name in self._layers if name in plan.int8}
        results = {name: int(self._lite.operators[index].outputs[0]) for name, index in places.items()}
        return {name: (makers[results[name]], KINDS[self._lite.kind(index)]) for name, index in places.items()}

    def _record(
        self, model: Any, layers: Mapping[str, tuple[Any, Kind]], balance: Balance
    ) -> Iterator[tuple[str, LayerRecord]]:
        """Scale and offset of each INT8 layer, as the model (ModelT) has them."""
        tensors = model.subgraphs[0].tensors
        for name, (op, kind) in layers.items():
            layer = self._layers[name]
            weight = tensors[op.inputs[kind.weight]] if layer.weight and kind.weight is not None else None
            scale_w = () if weight is None else tuple(map(float, weight.quantization.scale))
            for number, entry in enumerate(layer.records):
                data = affine_of(tensors[op.inputs[kind.data + number]])
                assert data is not None, entry
                yield entry, LayerRecord(data, scale_w, balance.factors.get(name, ()))


def _check_possible(plan: Plan) -> None:
    """Raise PlanError where no .tflite can be as the plan says."""
    if plan.fp16_scales:
        what = "FORCE_FP16_QUANT rounds scales to float16, which is for Ascend"
        raise PlanError("fakequant_precision_mode", what, hint="set it to DEFAULT, or choose --target tensorflow")
    if plan.fusion != EVERYTHING:
        what = "operators are not to be fused, but LiteRT's converter fuses what it can"
        raise PlanError("do_fusion, skip_fusion_layers", what, hint="remove them, or choose --target tensorflow")
