"""The Protocols of a target and its compiler: where an INT8 model runs, what can be quantized there, its file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autoquant.array import Array
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Record
from autoquant.calibration.statistics import Statistics
from autoquant.model.layer import Layer, Survey
from autoquant.model.model import Model, Program
from autoquant.quantization.affine import Affine
from autoquant.quiet import no_progress

OnStep = Callable[[str], None]
"""Called with the name of a step of the work, 'calibrate' or 'save', when that is done."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """What repairs that take data change in the file of a plan; scales of weights stay as they are.

    `biases` are added to the biases of layers, (channels,), in real units. `weights` are integers of layers, int8 in
    the shape of the weight in the model that is quantized, in place of those to which rounding to nearest leads.
    `activations` are scale and offset in place of those that were calibrated: by entry of the record with target
    tensorflow, by tensor with target litert, where all that share the scale of another one have its.
    """

    biases: Mapping[str, Array] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    activations: Mapping[str, Affine] = field(default_factory=dict)


NO_CORRECTIONS = Corrections()


@dataclass(frozen=True, slots=True)
class Int8File:
    """The file of a plan: scale and offset of every INT8 layer as they are in it.

    `qdq_ops` counts the operators in the file that turn float into INT8 or INT8 into float; None where the target
    has no others than those of the layers themselves.
    """

    record: Record
    qdq_ops: int | None = None


class Compiler(Protocol):
    """Writes INT8 files of one model from plans; whatever plans share is computed once."""

    def compile(
        self, plan: Plan, path: Path, on_step: OnStep = no_progress, *, corrections: Corrections = NO_CORRECTIONS
    ) -> Int8File:
        """Write the model: the layers of the plan in INT8, all other layers in float.

        `corrections` are of INT8 layers that have a weight, and a bias where that is to change; what the plan says of
        rounding and of bias correction is not used, as it takes data. Raises PlanError where the model cannot follow
        the plan, TrialError where a layer cannot be quantized with its statistics, RunError where nothing can be
        written.
        """
        ...

    def record(self, plan: Plan) -> Record:
        """Scale and offset of every INT8 layer as they will be in the file of a plan. Raises as `compile`."""
        ...

    def reference(self, plan: Plan) -> Program:
        """The float model that the file of a plan is the quantized form of, tensor by tensor."""
        ...


class Target(Protocol):
    """Where an INT8 model runs: decides what can be quantized, where quantizers sit, and what is saved."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def file_name(self, model: str) -> str:
        """Name of the file that is saved for a model of this name."""
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files that are written for a model at `path`, itself first."""
        ...

    def lowered(self, model: Model) -> Model:
        """The model in the form that is quantized; raises ModelError where the target cannot take it."""
        ...

    def survey(self, model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> Survey:
        """The layers of a lowered model, by the names of the model it came from, and what cannot be quantized.

        `input_shapes` gives the shape of a batch for inputs whose shape the file leaves open. Raises ModelError where
        nothing can be quantized.
        """
        ...

    def tensors(self, model: Model, layers: Mapping[str, Layer]) -> Collection[str]:
        """The tensors of a lowered model whose statistics it takes to quantize any of the layers."""
        ...

    def compiler(self, model: Model, layers: Mapping[str, Layer], statistics: Statistics) -> Compiler:
        """The compiler of a lowered model, equalized already where the plans want that."""
        ...
