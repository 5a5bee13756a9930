"""What INT8 costs between layers: which operators of a .tflite stay in float, and what the results of layers lose.

A .tflite holds more in INT8 than its layers read: sums, attention masks, joined features, all that is between two
layers. Each such tensor is rounded alone, and the divergence of the outputs measured. Of what layers do not make, the
cheapest tensors stay in INT8 as long as they cost no more together than a part of what layers cost without them; the
operators of the others are left in float, but for those that cost next to nothing beside the layers. What layers make
is INT8 whenever they are, so that is added to what they are predicted to lose.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
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
from autoquant.tuning.sensitivity.variants import RoundedTensor

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


def measure_between(
    model: Model,
    compiler: LiteRTCompiler,
    plan: Plan,
    data: Dataset,
    reading: OutputReading,
    *,
    folder: Path | None = None,
    on_progress: OnProgress = no_progress,
    warn: Callable[[str], None] = no_progress,
) -> Between:
    """Measure what the tensors lose that `plan`, of all layers in INT8, has in INT8 and no layer reads.

    `data` are calibration samples; `folder` is that of the cache. `warn` is told where LiteRT cannot run a part of the
    model on its own; then only what has no scale stays in float. Raises PlanError where the model cannot follow the
    plan or the statistics lack a tensor.
    """
    key = digest_of(__version__, model.digest, data.digest, reading, config_text(plan), compiler.io)
    path = None if folder is None else folder / f"between-{key[:16]}.npz"
    lite = model.program
    assert isinstance(lite, LiteGraph)

    on_progress(0, 0)
    between = compiler.between(plan)

    def compute() -> CacheEntry:
        tensors = [one for one in between if not _is_rounded_score(lite, one)]
        (budget, most), of_layers = BUDGETS, 0.0
        try:
            likelihoods = read_outputs(lite, data.spread(SAMPLES), reading)
            losses = _losses(lite, tensors, data, likelihoods, on_progress)
            if sum(losses.values()) > budget:
                on_progress(0, 0)
                of_layers = _loss_of_layers(lite, compiler, plan, tensors, data, likelihoods)
                budget = min(max(budget, SHARE * of_layers), most)
        except (ModelError, TrialError) as error:
            warn(f"{error}; operators between layers are assumed to lose nothing in INT8")
            losses = {one.tensor: math.inf for one in tensors if one.affine is None}
        by_tensor = {str(tensor): loss for tensor, loss in losses.items()}
        return CacheEntry({"losses": by_tensor, "budget": budget, "worth": WORTH * of_layers}, {})

    try:
        found = cached(path, compute, key=key, version=VERSION).header
    except OutOfTime:
        warn("--timeout leaves no time to measure operators between layers; they are assumed to lose nothing in INT8")
        return chosen(between, {one.tensor: math.inf for one in between if one.affine is None}, budget=BUDGETS[0])
    losses = {int(tensor): loss for tensor, loss in found["losses"].items()}
    return chosen(between, losses, budget=found["budget"], worth=found["worth"])


def chosen(
    tensors: Sequence[TensorBetween], losses: Mapping[int, float], *, budget: float, worth: float = 0.0
) -> Between:
    """Choose what stays in float, from nats by tensor; a tensor without any loses nothing.

    Beyond the `budget` of all together those that lose more than `worth`.
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
        if spent > budget and loss > worth:
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


def _loss_of_layers(
    lite: LiteGraph,
    compiler: LiteRTCompiler,
    plan: Plan,
    tensors: Collection[TensorBetween],
    data: Dataset,
    likelihoods: Mapping[str, Likelihood],
) -> float:
    """The divergence of a file whose layers alone are INT8; 0 where it is no number, or cannot be made or run."""
    alone = replace(plan, float_operators=frozenset(name for one in tensors for name in one.operators))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layers.tflite"
        try:
            compiler.compile(alone, path)
            found = file_divergence(lite, path.read_bytes(), _some(data, lite, 2), likelihoods)
        except TrialError:
            return 0.0
    return found if math.isfinite(found) else 0.0


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
