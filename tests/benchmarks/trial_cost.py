"""What a trial costs, as ratios to a plain FP32 pass over the same data on the same engine, from one run.

    python tests/benchmarks/trial_cost.py MODEL DATA [--calibration DATA] [--preprocess P] [--scale S] [--dmq S]
        [--repeat N]

The medians of N interleaved repetitions are compared, so that a busy machine disturbs both alike. The first trial is
shown apart: it chooses every range and weight scale anew, which later trials find ready. `--dmq` balances every layer,
which calibration pays for with statistics channel by channel.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from autoquant.calibration.plan import Plan, layer_plan
from autoquant.calibration.ranges import Ifmr
from autoquant.calibration.record import Calibrator
from autoquant.evaluation.baseline import measure_baseline
from autoquant.evaluation.evaluator import evaluate
from autoquant.evaluation.metrics import open_metric
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.model.layers import Layer
from autoquant.model.model import open_model
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.prepare import batches_in, calibrate, open_samples
from autoquant.tuning.request import DataRequest
from autoquant.tuning.workbench import Builder, Workbench
from autoquant.tuning.workload import Workload

PARTS = ("quantize", "calibrate", "save", "load", "score")


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--calibration")
    parser.add_argument("--preprocess")
    parser.add_argument("--scale")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--dmq", type=float)
    arguments = parser.parse_args(words)
    request = DataRequest(
        data=arguments.data,
        calibration=arguments.calibration,
        preprocess=arguments.preprocess,
        scale=arguments.scale,
    )
    bench, batches, calibration = _open(request, arguments.model, arguments.dmq)
    passes: list[float] = []
    trials: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.repeat):
            passes.append(_fp32_pass(bench))
            trials.append(dict(bench.carry_out(_plan(bench, number, batches, arguments.dmq), Path(folder)).seconds))
    _report(bench, median(passes), trials, calibration)


def _open(request: DataRequest, path: str, dmq: float | None) -> tuple[Workbench, int, float]:
    """Everything that trials share, the number of calibration batches, and the seconds that calibration took."""
    model = open_model(path)
    samples = open_samples(request, model, seed=0)
    metric, engine, size = open_metric("top1"), TensorFlowEngine(), request.batch_size
    runner = engine.open_graph(model.graph)
    baseline = measure_baseline(runner, samples.evaluation, metric, batch_size=size, key="")
    workload = Workload.of(model, samples.evaluation)
    batches = batches_in(samples.calibration, size)
    layers = _layers(workload)
    balanced = [name for name, layer in layers.items() if layer.balanceable] if dmq else []
    begin = time.perf_counter()
    statistics = calibrate(engine, model, layers, samples.calibration, [batches], batch_size=size, balanced=balanced)
    seconds = time.perf_counter() - begin
    builder = Builder(model, workload, Calibrator(model.graph, workload.layers, statistics), TensorFlowTarget())
    return Workbench(builder, samples.evaluation, metric, baseline, engine, size), batches, seconds


def _layers(workload: Workload) -> dict[str, Layer]:
    """All but the inputs that are quantized only where asked for."""
    return {name: layer for name, layer in workload.layers.items() if not layer.tensor_only}


def _plan(bench: Workbench, number: int, batches: int, dmq: float | None) -> Plan:
    """All layers in INT8; every plan differs from those before, as in a search, but shares most of its ranges."""
    layers = _layers(bench.builder.workload)
    changed = list(layers)[number % len(layers)]
    return Plan(
        {
            name: layer_plan(layer, Ifmr(max_percentile=0.9999) if number and name == changed else Ifmr(), dmq=dmq)
            for name, layer in layers.items()
        },
        batches,
    )


def _fp32_pass(bench: Workbench) -> float:
    begin = time.perf_counter()
    runner = bench.engine.open_graph(bench.builder.model.graph)
    evaluate(runner, bench.evaluation, bench.metric, batch_size=bench.batch_size)
    runner.close()
    return time.perf_counter() - begin


def _report(bench: Workbench, fp32: float, trials: list[dict[str, float]], calibration: float) -> None:
    print(f"{bench.builder.model.name}: {bench.builder.workload.size} layers, {len(bench.evaluation)} samples")
    print(f"plain FP32 pass: {fp32:.2f} s = 1; calibration, once a run: {calibration / fp32:.3f}")
    print(f"{'part':<16}{'first trial':>14}{'later (median)':>16}")
    for part in PARTS:
        later = median(trial[part] for trial in trials[1:] or trials)
        print(f"{part:<16}{trials[0][part] / fp32:>14.4f}{later / fp32:>16.4f}")
    costs = [sum(seconds for part, seconds in trial.items() if part != "score") for trial in trials]
    print(f"{'all but scoring':<16}{costs[0] / fp32:>14.4f}{median(costs[1:] or costs) / fp32:>16.4f}")


if __name__ == "__main__":
    main()
