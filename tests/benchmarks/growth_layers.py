"""What more layers take: every step from opening a model to explaining a run, for chains of small layers.

    python tests/benchmarks/growth_layers.py [--small]

Each chain and target is a child process, of which the CPU seconds of each step are printed, all threads together, and
the peak memory. A step grows with the number of layers to the power that is printed behind it: the slope of a straight
line through the logarithms, by least squares, of the chains of 50 layers and more, as a constant is most of what less
takes. Inference on samples of 64 numbers is little of it. Then guided searches through the public API.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import autoquant
from autoquant.array import Array
from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import builder_of_plan
from autoquant.tuning.sampling.samplers import Guided
from autoquant.tuning.sensitivity.predict import Predictor
from autoquant.tuning.sensitivity.request import SensitivityRequest
from autoquant.tuning.study.workload import Workload

CHAINS, SMALL, LINE = (10, 50, 200, 1000), (5, 10), 50
SIDE, CHANNELS, CLASSES, SAMPLES, BATCH = 4, 4, 10, 256, 64
SEARCHES, TRIALS = ((200, 40), (1000, 40)), 3
"""Layers and trials of the searches whose sampling is measured; trials of those that are exported and explained."""
STEPS = {
    "tensorflow": ("load", "survey", "statistics", "gradients", "divergence", "build"),
    "litert": ("load", "survey", "statistics", "divergence", "between", "build"),
}
AFTERWARDS = ("proposal", "export", "explain")
T = TypeVar("T")


class Seconds(dict[str, float]):
    """CPU seconds by step."""

    def timed(self, step: str, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """What a call gives; its time is added to that of the step."""
        begin = time.process_time()
        try:
            return call(*arguments, **options)
        finally:
            self[step] = self.get(step, 0.0) + time.process_time() - begin


def rows(*, small: bool = False) -> Iterator[str]:
    """The rows of the table."""
    chains = SMALL if small else CHAINS
    yield f"CPU s for chains of {', '.join(map(str, chains))} layers; exponent"
    for target, steps in STEPS.items():
        found = [_child("--chain", target, str(layers)) for layers in chains]
        for step in (*steps, *AFTERWARDS):
            costs = [one[step] for one in found]
            power = exponent(chains, costs, least=min(LINE, chains[-2]))
            yield f"  {target:12}{step:12}{''.join(f'{cost:9.2f}' for cost in costs)}{power:8.2f}"
        peaks = "".join(f"{one['peak']:9.0f}" for one in found)
        yield f"  {target:12}{'peak MB':12}{peaks}"
    yield "guided searches: layers, trials, CPU s of sampling, of all, peak MB"
    for target in STEPS:
        for layers, trials in ((10, 3),) if small else SEARCHES:
            one = _child("--search", target, str(layers), str(trials))
            counts = f"{layers:8}{one['trials']:8.0f}{one['proposal']:8.2f}{one['search']:8.1f}{one['peak']:8.0f}"
            yield f"  {target:12}{counts}"


def exponent(sizes: Sequence[int], costs: Sequence[float], *, least: int = LINE) -> float:
    """The power of the size that the cost grows with, by least squares over sizes of at least so many."""
    points = np.log([(size, cost) for size, cost in zip(sizes, costs, strict=True) if size >= least])
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0])


def _child(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(target: str, layers: int, folder: Path) -> dict[str, float]:
    """CPU seconds of each step for one chain on one target."""
    from autoquant.tuning.sensitivity.divergence import divergence
    from autoquant.tuning.sensitivity.fisher import fisher

    seconds, path, x = Seconds(), chain(layers, folder), samples()
    if target == "litert":
        from autoquant.model.litert.convert import convert

        lite = seconds.timed("load", convert, open_model(path).graph)
        path = folder / "chain.tflite"
        path.write_bytes(lite.content)
    model = seconds.timed("load", open_model, path)
    own, data = open_target(target), open_data((x, None), model.inputs)
    lowered = seconds.timed("load", own.lowered, model)
    workload = seconds.timed("survey", Workload.of, own, lowered, data)
    plan = Plan({name: layer_plan(layer, LayerPlan(MinMax())) for name, layer in workload.layers.items()}, 4)
    engine = open_engine(TARGETS[target].runtime)
    statistics = seconds.timed(
        "statistics",
        CalibrationRunner(engine, data, BATCH).statistics,
        lowered,
        workload.layers,
        [plan.batch_num],
        tensors=own.tensors(lowered, workload.layers),
    )
    request = SensitivityRequest(
        model=lowered,
        layers=workload.layers,
        candidates={name: [settings] for name, settings in plan.int8.items()},
        statistics=statistics,
        data=data,
    )
    if "gradients" in STEPS[target]:
        seconds.timed("gradients", fisher, request)
    seconds.timed("divergence", divergence, request)
    builder = builder_of_plan(plan, lowered, workload, own, engine, data, batch_size=BATCH)
    if "between" in STEPS[target]:
        seconds.timed("between", builder.measure_between, plan)
    seconds.timed("build", builder.build, plan, folder)
    found = searched(target, path, TRIALS, folder)
    seconds["proposal"] = found["proposal"] / found["trials"]
    seconds.timed("export", autoquant.export, folder / "run", folder / "exported")
    seconds.timed("explain", autoquant.explain, folder / "run")
    return seconds


def searched(target: str, path: Path, trials: int, folder: Path) -> dict[str, float]:
    """CPU seconds of a guided search, and of its proposals without the sensitivities that they wait for; its trials."""
    seconds, x = Seconds(), samples()
    labels = np.random.default_rng(1).integers(0, CLASSES, len(x))
    sample, predict = Guided.__call__, Predictor.predict
    with ExitStack() as stack:
        stack.enter_context(patch.object(Guided, "__call__", lambda *given: seconds.timed("sampler", sample, *given)))
        stack.enter_context(
            patch.object(Predictor, "predict", lambda *given: seconds.timed("predict", predict, *given))
        )
        result = seconds.timed(
            "search",
            autoquant.search,
            path,
            (x, labels),
            calibration=(samples(seed=1), None),
            target=target,
            metric="agreement",
            tolerance=0.004,
            certify="none",
            max_trials=trials,
            run=folder / "run",
        )
    proposal = seconds["sampler"] - seconds.get("predict", 0.0)
    return {"search": seconds["search"], "proposal": proposal, "trials": float(len(result.trials))}


def chain(layers: int, folder: Path) -> Path:
    """Write a frozen graph: half of the layers 3 x 3 convolutions, half dense, each with a bias and a ReLU.

    Weights are small changes of the identity, so that neither values nor errors grow from layer to layer, and the
    smaller the more layers there are, so that samples remain distinct.
    """
    import tensorflow as tf

    random, x = np.random.default_rng(layers), tf.constant(samples())
    width, weights = SIDE * SIDE * CHANNELS, list[tuple[Array, Array]]()
    change = 0.02 * min(1.0, LINE / layers) ** 0.5
    for number in range(layers):
        convolution = number < layers // 2
        if number == layers // 2:
            x = tf.reshape(x, (-1, width))
        channels = CLASSES if number == layers - 1 else x.shape[-1]
        weight = random.normal(0.0, change, (3, 3, CHANNELS, CHANNELS) if convolution else (width, channels))
        (weight[1, 1] if convolution else weight)[...] += np.eye(x.shape[-1], channels)
        weight = weight.astype(np.float32)
        made = tf.nn.conv2d(x, weight, 1, "SAME") if convolution else tf.matmul(x, weight)
        weight /= np.maximum(np.asarray(tf.math.reduce_std(made)), 1e-6)
        bias = random.normal(0.0, change, channels).astype(np.float32)
        made = tf.nn.conv2d(x, weight, 1, "SAME") if convolution else tf.matmul(x, weight)
        x = tf.nn.relu(made + bias)
        weights.append((weight, bias))
    with tf.Graph().as_default() as graph:
        y: Any = tf.compat.v1.placeholder(tf.float32, (None, SIDE, SIDE, CHANNELS), name="x")
        for number, (weight, bias) in enumerate(weights):
            name, last = f"l{number:04d}", number == layers - 1
            y = tf.reshape(y, (-1, width)) if weight.ndim == 2 and y.shape.rank == 4 else y
            y = tf.nn.conv2d(y, weight, 1, "SAME", name=name) if weight.ndim == 4 else tf.matmul(y, weight, name=name)
            y = tf.nn.bias_add(y, bias, name="y" if last else f"{name}/bias")
            y = y if last else tf.nn.relu(y, name=f"{name}/relu")
    path = folder / "chain.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def samples(seed: int = 0) -> Array:
    """Inputs of a chain."""
    return np.random.default_rng(seed).normal(size=(SAMPLES, SIDE, SIDE, CHANNELS)).astype(np.float32)


def main(words: list[str] | None = None) -> None:
    """Print all, or measure one chain or search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--chain", nargs=2, metavar=("TARGET", "LAYERS"))
    parser.add_argument("--search", nargs=3, metavar=("TARGET", "LAYERS", "TRIALS"))
    given = parser.parse_args(words)
    if not given.chain and not given.search:
        for row in rows(small=given.small):
            print(row, flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.chain:
            found = measure(given.chain[0], int(given.chain[1]), folder)
        else:
            target, layers, trials = given.search
            found = searched(target, chain(int(layers), folder), int(trials), folder)
        print(json.dumps({**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
