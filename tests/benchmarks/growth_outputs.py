"""What large outputs take: memory for scoring a trial, and calls of a metric that is no mean to certify a model.

    python tests/benchmarks/growth_outputs.py [--small]

Each case is a child process. It opens a model of one 1 x 1 convolution (or one MatMul) on LiteRT, runs a sample, makes
the data, and notes its peak memory; then it scores the FP32 model, draws the probe set, and scores a file on everything
as a trial does. The figure is by how much the peak grew meanwhile, beside the bytes of all outputs. `--small` takes a
hundredth of the samples.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import score_baseline
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.evaluation.statistics.paired import bootstrap_drop
from autoquant.model.litert import flatbuffer
from autoquant.model.open import open_model
from autoquant.quiet import no_progress
from autoquant.targets.table import open_target

MB = 1e6


@dataclass(frozen=True)
class Case:
    """Samples of a shape, and a layer that makes so many channels, or classes, of them."""

    samples: int
    shape: tuple[int, ...]
    channels: int
    metric: str
    goal: str = ""

    @property
    def bytes(self) -> float:
        """Of all outputs."""
        return 4.0 * self.samples * self.channels * float(np.prod(self.shape[:-1]))


CASES = {
    "maps, agreement": Case(256, (512, 512, 3), 20, "agreement", "2,000"),
    "maps, sqnr": Case(256, (512, 512, 3), 20, "sqnr", "2,000"),
    "maps, miou": Case(256, (512, 512, 3), 20, "miou", "2,000"),
    "images, psnr": Case(256, (512, 512, 3), 3, "psnr"),
    "classes, top1": Case(50_000, (16,), 1000, "top1", "300"),
    "classes, agreement": Case(50_000, (16,), 1000, "agreement", "300"),
    "classes, sqnr": Case(50_000, (16,), 1000, "sqnr", "300"),
}


def rows(*, small: bool = False) -> Iterator[str]:
    """The rows of the table."""
    yield "memory for scoring, MB: all outputs, the growth of the peak, the goal"
    for name, case in CASES.items():
        outputs = case.bytes / (100 if small else 1) / MB
        yield f"{name:20} {outputs:9,.0f} {peak(name, small=small):9,.0f} {case.goal:>6}"
    yield f"calls of a metric that is no mean, both bounds: {metric_calls():,}"


def peak(name: str, *, small: bool) -> float:
    """By how much a child's peak grew, in MB."""
    words = [sys.executable, __file__, "--case", name, *(["--small"] if small else [])]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def measure(case: Case, folder: Path) -> float:
    """The same, in this process."""
    model = open_target("litert").lowered(open_model(network(case, folder / "model.tflite")))
    engine, rng = LiteRTEngine(), np.random.default_rng(0)
    one = rng.normal(size=(1, *case.shape)).astype(np.float32)
    engine.open_graph(model.program)({"x": one})
    metric, inputs, shape = open_metric(case.metric), model.inputs, (case.samples, *case.shape)
    x = rng.integers(0, 255, shape, np.uint8) if len(case.shape) > 1 else rng.normal(size=shape).astype(np.float32)
    data = open_data((x, _labels(case, rng) if metric.needs_labels else None), inputs)
    before = peak_of_process()
    baseline = score_baseline(
        engine, model, data, metric, batch_size=50, cache=folder / "baseline.npz", on_progress=no_progress
    )
    subset = EvaluationSubset.of(data, metric, baseline)
    scorer = SampleScorer.of(engine, model.program, subset, seed=0, batch_size=50)
    scorer.score(folder / "model.tflite", StoppingRules(max_drop=1.0, alpha=0.05))
    return peak_of_process() - before


def peak_of_process() -> float:
    """In MB; Linux counts KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB


def network(case: Case, path: Path) -> Path:
    """Write a .tflite of one layer."""
    import tensorflow as tf

    weight = np.random.default_rng(1).normal(size=(case.shape[-1], case.channels)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, *case.shape], tf.float32, name="x")])  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def computed(x: Any) -> dict[str, Any]:
        return {"y": tf.nn.conv2d(x, weight[None, None], 1, "SAME") if len(case.shape) > 1 else tf.matmul(x, weight)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([computed.get_concrete_function()], tf.Module())
    made = flatbuffer.read(converter.convert())
    flatbuffer.add_signature(made, ["x"], ["y"])
    path.write_bytes(flatbuffer.write(made))
    return path


def _labels(case: Case, rng: np.random.Generator) -> Any:
    if case.metric == "psnr":
        return np.broadcast_to(np.float32(0.5), (case.samples, *case.shape[:-1], case.channels))
    return rng.integers(0, case.channels, (case.samples, *case.shape[:-1]), np.uint8 if case.channels < 256 else int)


def metric_calls() -> int:
    """How often the bounds of a metric that is no mean call it."""
    rng, calls = np.random.default_rng(0), 0

    def counted(values: Any) -> float:
        nonlocal calls
        calls += 1
        return float(values.std())

    before = rng.normal(size=300)
    bootstrap_drop(before, before + rng.normal(0, 0.1, 300), counted, higher_is_better=True, confidences=(0.95, 0.99))
    return calls


def main(words: list[str] | None = None) -> None:
    """Print all, or measure one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--case")
    given = parser.parse_args(words)
    if not given.case:
        for row in rows(small=given.small):
            print(row, flush=True)
        return
    case = CASES[given.case]
    with tempfile.TemporaryDirectory() as folder:
        samples = case.samples // 100 if given.small else case.samples
        print(measure(Case(samples, case.shape, case.channels, case.metric), Path(folder)))
    return


if __name__ == "__main__":
    main()
