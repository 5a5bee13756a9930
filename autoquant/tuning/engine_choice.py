"""Choosing the engine that scores a run: once, for the FP32 baseline and all trials alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autoquant.calibration.plan import Plan
from autoquant.errors import ModelError, PlanError, RunError, TrialError, UsageError
from autoquant.evaluation.engines.comparison import FLOAT_BOUND, INT8_BOUND, Comparison, Nudged, Remembered, compare
from autoquant.evaluation.engines.engine import Engine, Runner
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.targets.table import TARGETS
from autoquant.tuning.inputs import Inputs
from autoquant.tuning.study.choices import AUTO, TENSORFLOW

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.evaluation.engines.fake_quant import FakeQuantEngine

LITERT = "litert"
CALIBRATES = "calibrates"
"""Key of the engine that calibrates, in run.toml, where it is not the one that scores."""
Make = Callable[[Plan, Path], object]
"""Writes the INT8 file of a plan."""
PLANS = 5
"""So many starting points of a space are tried for an INT8 model to compare."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine; `reason` says why it is not LiteRT where that was preferred, `figures` how the two compared.

    `fp32` runs the FP32 model while calibrating, where that is another one.
    """

    engine: Engine
    reason: str = ""
    figures: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    fp32: Engine | None = None

    @property
    def calibrates(self) -> Engine:
        """The engine that runs the FP32 model while calibrating."""
        return self.fp32 or self.engine

    def as_table(self) -> dict[str, Any]:
        """As run.toml has it."""
        reason = {"reason": self.reason} if self.reason else {}
        fp32 = {CALIBRATES: self.fp32.name} if self.fp32 else {}
        return {"name": self.engine.name, "version": self.engine.version, **reason, **fp32, **self.figures}


@dataclass(frozen=True)
class EngineChooser:
    """Chooses the engine of a run. What the FP32 model gives in TensorFlow is computed once for all comparisons."""

    inputs: Inputs
    on_progress: OnProgress

    @cached_property
    def _fp32(self) -> Remembered:
        return Remembered(lambda: open_engine(TENSORFLOW).open_graph(self.inputs.model.program))

    def choose(self) -> EngineChoice:
        """Choose an engine; LiteRT for a graph of TensorFlow only where the FP32 model computes the same there.

        Raises UsageError where LiteRT is asked for and does not compute what TensorFlow does.
        """
        if self.inputs.request.engine == self._runtime or LITERT not in TARGETS[self.inputs.target.name].engines[1:]:
            return EngineChoice(open_engine(self._runtime))
        try:
            engine = self._fake_quant_engine()
            with closing(engine.open_graph(self.inputs.model.program)) as ours, closing(self._fp32) as theirs:
                compared = self._compared(ours, theirs)
        except (ModelError, TrialError) as error:
            return self.fall_back(f"{error.where}: {error.what}")
        figures = _figures("float", compared)
        if not compared.within(FLOAT_BOUND):
            return self.fall_back(f"the FP32 model's outputs differ on LiteRT: {compared}", figures)
        return EngineChoice(engine, figures=figures)

    def reopen(self, stored: Mapping[str, Any]) -> EngineChoice:
        """Open the engine that a run was started with. Raises RunError where it does not run the model any more."""
        figures = {key: value for key, value in stored.items() if key not in ("name", "version", "reason", CALIBRATES)}
        try:
            if stored["name"] == self._runtime:
                fp32 = self._fake_quant_engine() if CALIBRATES in stored else None
                return EngineChoice(open_engine(self._runtime), stored.get("reason", ""), figures, fp32)
            return EngineChoice(self._fake_quant_engine(), figures=figures)
        except ModelError as error:
            what = f"was started on LiteRT, which does not run the model any more: {error}"
            raise RunError("the run", what, hint="start a new run") from error

    def confirm(self, choice: EngineChoice, make: Make, plans: Iterable[Plan]) -> EngineChoice:
        """Compare an INT8 model too, and change to TensorFlow where LiteRT does not compute the same.

        `make` builds it from the first of the first few `plans` that can be built. Raises UsageError as `choose`.
        """
        if choice.engine.name == self._runtime:
            return choice
        try:
            compared, same = self._compared_int8(choice.engine, make, plans)
        except TrialError as error:
            return self._scored_elsewhere(choice, f"{error.where}: {error.what}")
        if compared is None:
            return self._scored_elsewhere(choice, "there is no INT8 model to compare with TensorFlow")
        figures = {**choice.figures, **_figures("int8", compared)}
        if not same:
            differ = f"the first INT8 model's outputs differ on LiteRT: {compared}"
            return self._scored_elsewhere(replace(choice, figures=figures), differ)
        return EngineChoice(choice.engine, figures=figures)

    def _scored_elsewhere(self, choice: EngineChoice, reason: str) -> EngineChoice:
        """TensorFlow, for this reason; the FP32 model, which is the same on LiteRT, stays there for its statistics."""
        return replace(self.fall_back(reason, choice.figures), fp32=choice.engine)

    def fall_back(self, reason: str, figures: Mapping[str, Any] = MappingProxyType({})) -> EngineChoice:
        """Choose TensorFlow, for this reason. Raises UsageError where LiteRT was asked for."""
        requested = self.inputs.request.engine
        if requested != AUTO:
            hint = f"leave it out, or give --engine {TENSORFLOW}"
            raise UsageError(f"--engine {requested}", f"cannot be used for this model: {reason}", hint=hint)
        return EngineChoice(open_engine(TENSORFLOW), reason, figures)

    @property
    def _runtime(self) -> str:
        return TARGETS[self.inputs.target.name].runtime

    def _fake_quant_engine(self) -> FakeQuantEngine:
        """LiteRT for this model. Raises ModelError where a layer cannot be fake-quantized on it."""
        from autoquant.evaluation.engines.fake_quant import FakeQuantEngine

        space = self.inputs.space
        layers = sorted(space.layers.values(), key=lambda layer: layer.name in space.always_float)
        engine = FakeQuantEngine.of(self.inputs.model.graph, layers)
        for name in space.layers:
            if name not in space.always_float and (reason := engine.reasons.get(name)):
                what = f"cannot be fake-quantized on LiteRT: {reason}"
                raise ModelError(name, what, hint=f"--engine {TENSORFLOW} can")
        return engine

    def _compared_int8(self, engine: Engine, make: Make, plans: Iterable[Plan]) -> tuple[Comparison | None, bool]:
        """How an INT8 model compares, if there is one, and whether that is the same but for rounding."""
        with tempfile.TemporaryDirectory() as folder:
            path, program = Path(folder) / "model.pb", self.inputs.model.program
            for plan in islice(plans, PLANS):
                try:
                    make(plan, path)
                except (PlanError, TrialError):
                    continue  # the search will come to it, and say so
                theirs = Remembered(lambda: open_engine(TENSORFLOW).open_file(path, program))
                with closing(theirs), closing(self._fp32) as plain:
                    with closing(engine.open_file(path, program)) as ours:
                        compared = self._compared(ours, theirs, plain)
                    if compared.within(INT8_BOUND):
                        return compared, True
                    return compared, compared.within_itself(self._compared(Nudged(theirs), theirs, plain))
        return None, False

    def _compared(self, ours: Runner, theirs: Runner, plain: Runner | None = None) -> Comparison:
        return compare(
            ours,
            theirs,
            self.inputs.splits.evaluation,
            batch_size=self.inputs.request.batch_size,
            of_classes=self.inputs.metric.of_classes,
            plain=plain,
            on_progress=self.on_progress,
        )


def _figures(what: str, compared: Comparison) -> dict[str, Any]:
    found = {"samples": compared.samples, "agreement": compared.agreement, "difference": compared.difference}
    return {f"{what}_{name}": value for name, value in found.items() if isfinite(value)}
