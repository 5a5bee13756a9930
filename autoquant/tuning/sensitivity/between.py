"""What INT8 costs between layers: which operators of a .tflite stay in float, and what the results of layers lose.

A .tflite holds more in INT8 than its layers read: sums, attention masks, joined features, all that is between two
layers. All such tensors are rounded together, and the divergence of the outputs measured: where that is no more than a
part of what layers cost without them, all stay in INT8. Else each is rounded alone. Of what layers do not make, the
cheapest tensors stay in INT8 as long as they cost no more than that; the operators of the others are left in float, but
for those that cost next to nothing beside the layers. What layers make is INT8 whenever they are, so what that costs,
tensor by tensor, is added to what layers are predicted to lose, once that is asked for.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from autoquant import __version__
from autoquant.cache import CacheEntry, cached, digest_of
from autoquant.calibration.plan import Plan
from autoquant.errors import ModelError, OutOfTime, TrialError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.formats.config_json import config_text
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.quiet import no_progress
from autoquant.targets.litert import LiteRTCompiler
from autoquant.targets.litert_calibration import TensorBetween
from autoquant.targets.litert_operators import FIXED_SCALES
from autoquant.tuning.sensitivity.divergence import divergences, file_divergence, read_outputs
from autoquant.tuning.sensitivity.likelihoods import Likelihood, OutputReading
from autoquant.tuning.sensitivity.request import Between
from autoquant.tuning.sensitivity.variants import RoundedTensor, rounded_together

VERSION = 3
SHARE, BUDGETS = 0.25, (1e-3, 0.05)
"""Tensors in INT8 between layers may cost together this share of what all layers cost without them, and so many nats
at least, a tenth or less of what 1 % of accuracy takes, and at most: it may be a layer that costs as much which ends in
float.
"""
WORTH = 0.01
"""What a tensor must cost, as a part of what all layers cost, for its operators to be worth conversions."""
SAMPLES, LEAST, VALUES = 64, 2, 500_000_000
"""So many samples, or as few as it takes to compute no more than so many values, but not fewer than LEAST.

That is some fifty passes of ResNet50 at 224 x 224, fewer than its calibration takes.
"""
PASSES = 16
"""What few passes tell is measured on as many samples as if there were so many: in an eighth of that time each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorsBetween:
    """What the tensors cost that `plan`, of all layers in INT8, has in INT8 and no layer reads.

    `data` are calibration samples; `folder` is that of the cache. `warn` is told where LiteRT cannot run a part of the
    model on its own; then only what has no scale stays in float. What is asked for first raises PlanError where the
    model cannot follow the plan or the statistics lack a tensor.
    """

    model: Model
    compiler: LiteRTCompiler
    plan: Plan
    data: Dataset
    reading: OutputReading
    folder: Path | None = None
    on_progress: OnProgress = no_progress
    warn: Callable[[str], None] = no_progress

    @cached_property
    def float_operators(self) -> frozenset[str]:
        """Operators to leave in float; a few passes tell, where all tensors together cost no more than they may."""
        if self._together["cost"] <= self._together["budget"]:
            return chosen(self._tensors, self._unscaled, budget=math.inf).float_operators
        return self._one_by_one.float_operators

    @cached_property
    def costs(self) -> Between:
        """What each tensor costs alone, which takes many passes."""
        return replace(self._one_by_one, float_operators=self.float_operators)

    @cached_property
    def _tensors(self) -> Sequence[TensorBetween]:
        return self.compiler.between(self.plan)

    @cached_property
    def _measured(self) -> Sequence[TensorBetween]:
        return [one for one in self._tensors if not _is_rounded_score(self._lite, one)]

    @cached_property
    def _unscaled(self) -> Mapping[int, float]:
        return {one.tensor: math.inf for one in self._tensors if one.affine is None}

    @property
    def _lite(self) -> LiteGraph:
        assert isinstance(self.model.program, LiteGraph)
        return self.model.program

    @cached_property
    def _likelihoods(self) -> Mapping[str, Likelihood]:
        return read_outputs(self._lite, self.data.spread(SAMPLES), self.reading)

    @cached_property
    def _together(self) -> Mapping[str, float]:
        """Nats: what all tensors with a scale `cost` in one file, their `budget`, and what is `worth` a conversion."""

        def compute() -> CacheEntry:
            (budget, most), of_layers = BUDGETS, 0.0
            try:
                cost = self._cost_of_all()
                if cost > budget:
                    self.on_progress(0, 0)
                    of_layers = self._cost_of_layers()
                    budget = min(max(budget, SHARE * of_layers), most)
            except (ModelError, TrialError) as error:
                self.warn(f"{error}; operators between layers are assumed to lose nothing in INT8")
                cost = 0.0
            return CacheEntry({"cost": cost, "budget": budget, "worth": WORTH * of_layers}, {})

        return self._cached("together", compute, {"cost": 0.0, "budget": BUDGETS[0], "worth": 0.0})

    @cached_property
    def _one_by_one(self) -> Between:
        together = self._together

        def compute() -> CacheEntry:
            losses = _losses(self._lite, self._measured, self.data, self._likelihoods, self.on_progress)
            return CacheEntry({str(tensor): loss for tensor, loss in losses.items()}, {})

        try:
            found = self._cached("between", compute, {})
        except (ModelError, TrialError) as error:
            self.warn(f"{error}; operators between layers are assumed to lose nothing in INT8")
            found = {}
        losses = {**self._unscaled, **{int(tensor): loss for tensor, loss in found.items()}}
        return chosen(self._tensors, losses, budget=together["budget"], worth=together["worth"])

    def _cached(
        self, name: str, compute: Callable[[], CacheEntry], otherwise: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Numbers by name from the cache, or computed; others where there is no time for that."""
        facts = (self.model.digest, self.data.digest, self.reading, config_text(self.plan), self.compiler.io)
        key = digest_of(__version__, name, *facts)
        path = None if self.folder is None else self.folder / f"{name}-{key[:16]}.npz"
        self.on_progress(0, 0)
        try:
            return cached(path, compute, key=key, version=VERSION).header
        except OutOfTime:
            left = "to measure operators between layers; they are assumed to lose nothing in INT8"
            self.warn(f"--timeout leaves no time {left}")
            return otherwise

    def _cost_of_all(self) -> float:
        """The divergence of a file in which each tensor is rounded for whatever reads it; infinite if it is no number.

        Raises ModelError and TrialError where LiteRT cannot tell.
        """
        variants = [RoundedTensor(one.tensor, one.affine) for one in self._measured if one.affine is not None]
        if not variants:
            return 0.0
        content = rounded_together(self._lite, variants)
        return file_divergence(self._lite, content, _some(self.data, self._lite, PASSES), self._likelihoods)

    def _cost_of_layers(self) -> float:
        """The divergence of a file whose layers alone are INT8; 0 where it is no number, or cannot be made or run."""
        names = frozenset(name for one in self._measured for name in one.operators)
        some = _some(self.data, self._lite, PASSES)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layers.tflite"
            try:
                self.compiler.compile(replace(self.plan, float_operators=names), path)
                found = file_divergence(self._lite, path.read_bytes(), some, self._likelihoods)
            except TrialError:
                return 0.0
        return found if math.isfinite(found) else 0.0


def chosen(
    tensors: Sequence[TensorBetween], losses: Mapping[int, float], *, budget: float, worth: float = 0.0
) -> Between:
    """Choose what stays in float, from nats by tensor; a tensor without any loses nothing.

    Beyond the `budget` of all together those that lose more than `worth`, and whatever makes the outputs no numbers.
    """
    operators: dict[str, float] = {}
    layers: dict[str, float] = {}
    in_float: set[str] = set()
    spent = 0.0
    for one in sorted(tensors, key=lambda one: losses.get(one.tensor, 0.0)):
        loss = losses.get(one.tensor, 0.0)
        if one.layer:
            layers[one.layer] = loss
            continue
        operators |= {name: max(operators.get(name, 0.0), loss) for name in one.operators}
        spent += loss
        if math.isinf(loss) or (spent > budget and loss > worth):
            in_float.update(one.operators)
    return Between(operators, layers, frozenset(in_float))


def _losses(
    lite: LiteGraph,
    tensors: Collection[TensorBetween],
    data: Dataset,
    likelihoods: Mapping[str, Likelihood],
    on_progress: OnProgress,
) -> dict[int, float]:
    """The divergence of each tensor alone, by its index; infinite where it has no scale."""
    variants = {one.tensor: RoundedTensor(one.tensor, one.affine) for one in tensors if one.affine is not None}
    behind = (len(lite.operators) - lite.makers.get(tensor, -1) - 1 for tensor in variants)
    passes = sum(behind) / len(lite.operators)
    found = divergences(
        lite,
        variants.items(),
        _some(data, lite, passes),
        likelihoods,
        total=len(variants),
        on_progress=on_progress,
    )
    return {one.tensor: found.get(one.tensor, math.inf) for one in tensors}


def _some(data: Dataset, lite: LiteGraph, passes: float) -> Dataset:
    """As many samples as so many passes of the model take over each."""
    values = sum(
        math.prod(size or 1 for size in lite.shape_of(op.outputs[0])) for op in lite.operators if len(op.outputs)
    )
    return data.spread(min(max(int(VALUES / max(values * passes, 1.0)), LEAST), SAMPLES))


def _is_rounded_score(lite: LiteGraph, one: TensorBetween) -> bool:
    """Whether it is an output in steps of 1/256: of a small probability the logarithm makes more than anybody asks."""
    maker = lite.makers.get(one.tensor)
    is_output = one.tensor in set(map(int, lite.subgraph.outputs))
    return is_output and maker is not None and lite.kind(maker) in FIXED_SCALES
