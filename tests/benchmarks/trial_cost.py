"""What a trial costs, as ratios to a plain FP32 pass over the same data on the same engine, from one run.

    python tests/benchmarks/trial_cost.py MODEL DATA [--target T] [--engine E] [--calibration DATA] [--preprocess P]
        [--scale S] [--dmq S] [--bias-correction C] [--repeat N]
    python tests/benchmarks/trial_cost.py --mobilenet-v2 IMAGES [--target T] [--engine E] [--repeat N]

The medians of N interleaved repetitions are compared, so that a busy machine disturbs both alike. The first trial is
shown apart: it chooses every range and weight scale anew, which later trials find ready. For the TensorFlow target on
LiteRT each saved file is scored in TensorFlow as well, for the ratio of the two. `--dmq` balances every layer, which
calibration pays for with statistics channel by channel. `--bias-correction` is analytic or empirical.
`--mobilenet-v2` builds MobileNetV2 of 224 x 224 with random weights, and as many random images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from autoquant.calibration.plan import CORRECTIONS, LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import Ifmr
from autoquant.evaluation.engines.engine import Engine, Runner
from autoquant.evaluation.engines.fake_quant import FakeQuantEngine
from autoquant.evaluation.engines.table import ENGINES, open_engine
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.passes import CalibrationRunner, batches_in
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import Builder, Stopwatch
from autoquant.tuning.inputs import open_splits
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.corrections import Repairs
from autoquant.tuning.repairs.equalization import ModelVariant
from autoquant.tuning.repairs.training.trainer import Trainer
from autoquant.tuning.repairs.weight_rounding import Rounder
from autoquant.tuning.study.model_request import DataRequest
from autoquant.tuning.study.workload import Workload

PARTS = ("quantize", "calibrate", "save", "load", "score")
SIZE = 224


@dataclass(frozen=True)
class Opened:
    """Everything that trials share, the number of calibration batches, and the seconds that calibration took."""

    builder: Builder
    scorer: SampleScorer
    batches: int
    calibration: float


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--target", choices=TARGETS, default="tensorflow")
    parser.add_argument("--engine", choices=ENGINES, default="litert")
    parser.add_argument("--mobilenet-v2", type=int, metavar="IMAGES")
    parser.add_argument("--calibration")
    parser.add_argument("--preprocess")
    parser.add_argument("--scale")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--dmq", type=float)
    parser.add_argument("--bias-correction", choices=CORRECTIONS, default="none")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.mobilenet_v2:
            arguments.model, arguments.data = _mobilenet(Path(folder), arguments.mobilenet_v2)
        _measure(arguments, Path(folder))


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    opened = _open(arguments)
    builder, scorer = opened.builder, opened.scorer
    both = arguments.target == "tensorflow" and arguments.engine == "litert"
    passes: list[float] = []
    trials: list[dict[str, float]] = []
    elsewhere: list[float] = []
    for number in range(arguments.repeat):
        passes.append(_fp32_pass(scorer))
        # A drop of 1 is allowed, so that all samples are scored.
        rules = StoppingRules(max_drop=1.0, alpha=0.05, order=number)
        plan = replace(_plan(opened, number, arguments.dmq), bias_correction=arguments.bias_correction)
        watch = Stopwatch()
        path = builder.build(plan, folder, watch.lap).path
        scorer.score(path, rules, watch.lap)
        trials.append(watch.laps)
        if both:
            elsewhere.append(_pass(scorer, open_engine("tensorflow").open_file(path, builder.model.program)))
    _report(opened, median(passes), trials)
    if both:
        ratio = median(elsewhere) / median(trial["score"] for trial in trials)
        print(f"scoring the same files in TensorFlow takes {ratio:.2f} times as long")


def _open(arguments: argparse.Namespace) -> Opened:
    request = DataRequest(
        data=arguments.data,
        calibration=arguments.calibration,
        preprocess=arguments.preprocess,
        scale=arguments.scale,
    )
    target = open_target(arguments.target)
    model = target.lowered(open_model(arguments.model))
    samples = open_splits(request, model, seed=0)
    workload = Workload.of(target, model, samples.evaluation)
    layers = _layers(workload)
    engine = _engine(arguments.engine, arguments.target, model, layers)
    metric, size = open_metric("agreement" if arguments.mobilenet_v2 else "top1"), request.batch_size
    baseline = measure_baseline(engine.open_graph(model.program), samples.evaluation, metric, batch_size=size, key="")
    batches = batches_in(samples.calibration, size)
    balanced = [name for name, layer in layers.items() if layer.can.balanceable] if arguments.dmq else []
    tensors = target.tensors(model, workload.layers)
    begin = time.perf_counter()
    calibration = CalibrationRunner(engine, samples.calibration, size)
    statistics = calibration.statistics(model, layers, [batches], tensors=tensors, balanced=balanced)
    seconds = time.perf_counter() - begin
    prepared = ModelVariant(model, target.compiler(model, workload.layers, statistics))
    own = target, workload.layers, calibration
    repairs = Repairs(Rounder(*own), Corrector(*own), Trainer(*own))
    builder = Builder(model, workload, target, lambda plan: prepared, repairs)
    subset = EvaluationSubset.of(samples.evaluation, metric, baseline)
    scorer = SampleScorer.of(engine, model.program, subset, seed=0, batch_size=size)
    return Opened(builder, scorer, batches, seconds)


def _engine(name: str, target: str, model: Model, layers: dict[str, Layer]) -> Engine:
    if name == target == "tensorflow":
        return open_engine(name)
    if target == "tensorflow":
        return FakeQuantEngine.of(model.graph, layers.values())
    return open_engine("litert")


def _layers(workload: Workload) -> dict[str, Layer]:
    """All but the inputs that are quantized only where asked for."""
    return {name: layer for name, layer in workload.layers.items() if not layer.tensor_only}


def _plan(opened: Opened, number: int, dmq: float | None) -> Plan:
    """All layers in INT8; every plan differs from those before, as in a search, but shares most of its ranges."""
    layers = _layers(opened.builder.workload)
    changed = list(layers)[number % len(layers)]
    return Plan(
        {
            name: layer_plan(
                layer,
                LayerPlan(activation=Ifmr(max_percentile=0.9999) if number and name == changed else Ifmr(), dmq=dmq),
            )
            for name, layer in layers.items()
        },
        opened.batches,
    )


def _fp32_pass(scorer: SampleScorer) -> float:
    begin = time.perf_counter()
    runner = scorer.engine.open_graph(scorer.program)
    opening = time.perf_counter() - begin
    return opening + _pass(scorer, runner)


def _pass(scorer: SampleScorer, runner: Runner) -> float:
    """Seconds to score all samples with an opened model."""
    begin = time.perf_counter()
    with closing(runner):
        scorer.subset.evaluate(runner, batch_size=scorer.batch_size)
    return time.perf_counter() - begin


def _report(opened: Opened, fp32: float, trials: list[dict[str, float]]) -> None:
    builder, scorer = opened.builder, opened.scorer
    print(f"{builder.model.name}: {builder.workload.size} layers, {len(scorer.subset)} samples")
    print(f"target {builder.target.name}, engine {scorer.engine.version}")
    print(f"plain FP32 pass: {fp32:.2f} s = 1; calibration, once a run: {opened.calibration / fp32:.3f}")
    print(f"{'part':<16}{'first trial':>14}{'later (median)':>16}")
    for part in PARTS if "correct" not in trials[0] else (PARTS[0], "correct", *PARTS[1:]):
        later = median(trial[part] for trial in trials[1:] or trials)
        print(f"{part:<16}{trials[0][part] / fp32:>14.4f}{later / fp32:>16.4f}")
    costs = [sum(seconds for part, seconds in trial.items() if part != "score") for trial in trials]
    print(f"{'all but scoring':<16}{costs[0] / fp32:>14.4f}{median(costs[1:] or costs) / fp32:>16.4f}")
    print(f"all but scoring of a later trial: {median(costs[1:] or costs):.3f} s")


def _mobilenet(folder: Path, images: int) -> tuple[Path, Path]:
    """A MobileNetV2 of random weights that normalizes what it sees, and images of large patches for it."""
    import keras

    keras.utils.set_random_seed(0)
    patches = np.random.default_rng(0).uniform(-1, 1, (images, 7, 7, 3)).astype(np.float32)
    x = patches.repeat(SIZE // 7, axis=1).repeat(SIZE // 7, axis=2)
    net = keras.applications.MobileNetV2((SIZE, SIZE, 3), weights=None, classifier_activation=None)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    net(x[:16], training=True)
    net.save(folder / "mobilenet_v2.keras")
    np.savez(folder / "images.npz", x=x)
    return folder / "mobilenet_v2.keras", folder / "images.npz"


if __name__ == "__main__":
    main()
