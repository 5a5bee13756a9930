"""How well sensitivities rank layers, against what each layer does to the output when it alone is in INT8.

    python tests/benchmarks/sensitivity.py MODEL DATA [--target T] [--calibration DATA] [--preprocess P] [--scale S]
        [--samples N] [--evaluated N] [--seeds N] [--repeat N]

For every layer a real model is built in which it alone is in INT8, and run on the engine of a search; in float64, the
divergence of its outputs from those of the float model is averaged over N evaluation samples. Printed are the rank
correlations (Spearman) with that: of sensitivities by gradients, for several seeds; of those that are measured without
gradients; and, for graphs of TensorFlow, of AMCT's measures, cosine similarity and mean squared error of what the layer
gives. Costs are ratios to a plain FP32 pass over the same samples in the same library, from one run; what it takes to
begin with is subtracted, as it is spent once, whatever the number of samples.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from scipy.stats import spearmanr

from autoquant.amct.ranking import SENSITIVITIES
from autoquant.array import Array
from autoquant.calibration.plan import Plan, layer_plan
from autoquant.calibration.statistics import Statistics
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.engine import Engine, Runner
from autoquant.evaluation.engines.fake_quant import FakeQuantEngine
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.engines.tensorflow import TensorFlowRunner
from autoquant.evaluation.passes import CalibrationRunner, batches_in
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.model import Model, is_lite
from autoquant.model.open import open_model
from autoquant.targets.base import Target
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import Builder
from autoquant.tuning.inputs import open_splits
from autoquant.tuning.repairs.equalization import ModelVariant
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.fisher import fisher
from autoquant.tuning.sensitivity.likelihoods import likelihood_of
from autoquant.tuning.sensitivity.request import SAMPLES, SensitivityRequest
from autoquant.tuning.study.model_request import DataRequest
from autoquant.tuning.study.workload import Workload

BATCH = 50
TIMED = 1600
"""So many samples are run to measure costs, where there are as many."""
Values = Mapping[str, float]
"""One number for each layer."""


@dataclass(frozen=True)
class Opened:
    """What is asked of the model as it is given, and what builds INT8 models of it and runs them.

    Costs are measured on more samples, `timed`.
    """

    request: SensitivityRequest
    builder: Builder
    engine: Engine
    evaluation: Dataset
    timed: Dataset


@dataclass(frozen=True)
class Ranked:
    """Numbers for each layer: measured in real INT8 models, and by each way to predict that."""

    measured: Values
    predicted: Mapping[str, Values]

    @property
    def correlations(self) -> Mapping[str, float]:
        """Rank correlation of each way."""
        names = list(self.measured)
        truth = [self.measured[name] for name in names]
        return {
            way: float(spearmanr([values[name] for name in names], truth).statistic)
            for way, values in self.predicted.items()
        }


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--calibration")
    parser.add_argument("--preprocess")
    parser.add_argument("--scale")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--evaluated", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args(words)
    opened = open_all(
        DataRequest(
            data=arguments.data,
            calibration=arguments.calibration,
            preprocess=arguments.preprocess,
            scale=arguments.scale,
        ),
        arguments.model,
        target=arguments.target,
        samples=arguments.samples,
        evaluated=arguments.evaluated,
    )
    ranked = rank(opened, seeds=arguments.seeds)
    layers, chosen = len(ranked.measured), len(opened.request.sample_subset)
    print(f"{opened.request.model.name}: {layers} layers, {chosen} samples, {len(opened.evaluation)} evaluated")
    for way, correlation in ranked.correlations.items():
        print(f"Spearman {way:<24}{correlation:>8.3f}")
    for way, cost in costs(opened, repeat=arguments.repeat).items():
        print(f"passes   {way:<24}{cost:>8.1f}")


def open_all(
    request: DataRequest, path: str | Path, *, target: str | None = None, samples: int = SAMPLES, evaluated: int = 400
) -> Opened:
    """Open a model with its data, and calibrate it: as it is given, and as the target takes it."""
    own = "litert" if is_lite(path) else "tensorflow"
    chosen, given = open_target(target or own), open_model(path)
    data = open_splits(request, given, seed=0)
    workload, statistics = _calibrated(open_target(own), given, data.calibration, request.batch_size)
    lowered = chosen.lowered(given)
    wanted, seen = workload, statistics
    if chosen.name != own:
        wanted, seen = _calibrated(chosen, lowered, data.calibration, request.batch_size)
    layers = {name: layer for name, layer in wanted.layers.items() if not layer.tensor_only}
    asked = SensitivityRequest(
        model=given,
        layers=workload.layers,
        candidates={name: [layer_plan(layer)] for name, layer in layers.items()},
        statistics=statistics,
        data=data.calibration,
        samples=samples,
    )
    prepared = ModelVariant(lowered, chosen.compiler(lowered, wanted.layers, seen))
    builder = Builder(lowered, wanted, chosen, lambda plan: prepared)
    order = np.random.default_rng(0).permutation(len(data.evaluation))
    evaluation, timed = (data.evaluation.subset(order[:count]) for count in (evaluated, TIMED))
    return Opened(asked, builder, _engine(chosen.name, given, wanted), evaluation, timed)


def _calibrated(target: Target, model: Model, data: Dataset, batch_size: int) -> tuple[Workload, Statistics]:
    workload = Workload.of(target, model, data)
    tensors = target.tensors(model, workload.layers)
    engine, batches = open_engine(TARGETS[target.name].runtime), [batches_in(data, batch_size)]
    calibration = CalibrationRunner(engine, data, batch_size)
    return workload, calibration.statistics(model, workload.layers, batches, tensors=tensors)


def _engine(target: str, model: Model, workload: Workload) -> Engine:
    if target == "tensorflow":
        return FakeQuantEngine.of(model.graph, workload.layers.values())
    return open_engine(target)


def rank(opened: Opened, *, seeds: int = 1, amct: bool = True) -> Ranked:
    """Measure every layer, and predict that in every way; `amct` says whether by AMCT's measures too."""
    request = opened.request
    with tempfile.TemporaryDirectory() as folder:
        measured, outputs = _measured(opened, Path(folder), amct=amct)
    ways = {}
    if isinstance(request.model.program, Graph):
        ways = {f"fisher, seed {seed}": fisher(replace(request, seed=seed)) for seed in range(seeds)}
    ways["divergence"] = divergence(request)
    predicted = {way: {n: v[0] for n, v in found.values.items()} for way, found in ways.items()}
    return Ranked(measured, {**predicted, **outputs})


def _measured(opened: Opened, folder: Path, *, amct: bool) -> tuple[Values, Mapping[str, Values]]:
    """The divergence of each layer's INT8 model, and AMCT's measures of what its operator gives, where those apply."""
    builder, request = opened.builder, opened.request
    program = builder.model.program
    runner = opened.engine.open_graph(program)
    before = _outputs(runner, opened.evaluation)
    likelihood = likelihood_of(before, request.reading)
    measured: dict[str, float] = {}
    others: dict[str, dict[str, float]] = {}
    for name, (settings,) in request.candidates.items():
        built = builder.build(Plan({name: settings}, request.batches), folder)
        after = _outputs(opened.engine.open_file(built.path, program), opened.evaluation)
        measured[name] = float(np.maximum(likelihood.divergence(before, after), 0.0).mean())
        if amct and builder.target.name == "tensorflow":
            for way, value in _compared(opened, name, built.path).items():
                others.setdefault(way, {})[name] = value
    return measured, others


def _outputs(runner: Runner, data: Dataset, name: str | None = None) -> Array:
    found = [dict(runner(batch.inputs)) for batch in data.batches(BATCH)]
    runner.close()
    return np.concatenate([one[name] if name else next(iter(one.values())) for one in found])


def _compared(opened: Opened, layer: str, path: Path) -> Values:
    """AMCT's measures, as errors, of the result that has the layer's name in both graphs."""
    graph, own = opened.builder.model.graph, opened.builder.workload.layers[layer]
    data = opened.evaluation.subset(np.arange(min(BATCH, len(opened.evaluation))))
    result = own.bias or layer
    float_ = _outputs(open_engine("tensorflow").open_graph(graph, [result]), data, result)
    saved = GraphDef.FromString(path.read_bytes())
    int8 = _outputs(TensorFlowRunner(saved, graph.inputs, [result], cut=False), data, result)
    found = {}
    for way, make in SENSITIVITIES.items():
        measure = make()
        value = measure.compare(float_, int8)
        found[f"amct {way}"] = -value if measure.higher_is_better else value
    return found


def costs(opened: Opened, *, repeat: int) -> Values:
    """Plain passes that each way takes for the same samples."""
    request, model = replace(opened.request, data=opened.timed, samples=TIMED), opened.request.model
    found = {}
    if isinstance(model.program, Graph):
        found["fisher"] = _cost(fisher, request, lambda: open_engine("tensorflow").open_graph(model.program), repeat)
    found["divergence"] = _cost(divergence, request, lambda: open_engine("litert").open_graph(model.program), repeat)
    return found


def _cost(
    way: Callable[[SensitivityRequest], object], request: SensitivityRequest, opened: Callable[[], Runner], repeat: int
) -> float:
    """The medians of what twice the samples cost beyond the samples, divided by each other."""
    both = [replace(request, samples=len(request.sample_subset) // part) for part in (2, 1)]
    ways: list[float] = []
    plain: list[float] = []
    runner = opened()
    for _ in range(repeat):
        for seconds, work in ((ways, way), (plain, partial(_run, runner))):
            less, more = (_seconds(partial(work, one)) for one in both)
            seconds.append(more - less)
    runner.close()
    return median(ways) / median(plain)


def _run(runner: Runner, request: SensitivityRequest) -> None:
    """A plain pass."""
    for batch in request.sample_subset.batches(BATCH):
        runner(batch.inputs)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
