"""What calibration costs, as a ratio to the FP32 pass over the same samples that a run does, on LiteRT.

    python tests/benchmarks/calibration_cost.py MODEL [DATA] [--target T] [--preprocess P] [--scale S] [--samples N]
        [--batch-size N] [--threads N] [--repeat N]

The FP32 pass opens the model and scores all samples, data reading and preprocessing included. Against it stands
calibration as a run does it for a target, litert unless told: all tensors that the target asks for, from opening the
model to the file of statistics; and the same with every tensor channel by channel that balancing may ask for. CPU times
of all threads are compared, medians and the least of N interleaved repetitions, so that a busy machine disturbs all
alike. Memory is the peak of what Python and NumPy hold meanwhile, without the interpreter's own. Without DATA samples
are random, in [-1, 1], of class 0; MODEL may be MobileNetV2, 224 x 224 with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.evaluation.metrics.metric import Score
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.passes import CalibrationRunner, batches_in
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.inputs import open_dataset
from autoquant.tuning.study.model_request import DataRequest
from autoquant.tuning.study.workload import Workload

MOBILENET = "MobileNetV2"


@dataclass(frozen=True)
class Bench:
    """A model, its samples, its layers and the tensors that the target asks for."""

    model: Model
    data: Dataset
    layers: Mapping[str, Layer]
    tensors: Collection[str]
    engine: LiteRTEngine
    size: int

    def plain(self) -> None:
        """The FP32 pass."""
        runner = self.engine.open_graph(self.model.program)
        try:
            baseline = Baseline("", Score(0.0, np.zeros(len(self.data))))
            EvaluationSubset.of(self.data, open_metric("top1"), baseline).evaluate(runner, batch_size=self.size)
        finally:
            runner.close()

    def calibrated(self, path: Path, balanced: Collection[str] = ()) -> None:
        """Calibration, kept in a file that is not there yet."""
        path.unlink(missing_ok=True)
        number = batches_in(self.data, self.size)
        options: dict[str, Any] = {"tensors": self.tensors, "balanced": balanced, "cache": path}
        calibration = CalibrationRunner(self.engine, self.data, self.size)
        calibration.statistics(self.model, self.layers, [number], **options)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--target", choices=TARGETS, default="litert")
    parser.add_argument("--preprocess")
    parser.add_argument("--scale")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=DataRequest.batch_size)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args(words)
    bench = _open(arguments)
    balanced = [name for name, layer in bench.layers.items() if layer.can.balanceable]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "statistics.npz"
        passes: Mapping[str, Callable[[], None]] = {
            "FP32 pass": bench.plain,
            "calibration": lambda: bench.calibrated(path),
            f"with channels of {len(balanced)} layers": lambda: bench.calibrated(path, balanced),
        }
        peak = _peak(passes["calibration"])
        for _ in range(arguments.repeat):
            for name, run in passes.items():
                begin = time.process_time()
                run()
                seconds.setdefault(name, []).append(time.process_time() - begin)
        size = path.stat().st_size
    _report(bench, seconds, size, peak)


def _open(arguments: argparse.Namespace) -> Bench:
    model = _model(arguments.model)
    request = DataRequest(data=arguments.data, preprocess=arguments.preprocess, scale=arguments.scale)
    if arguments.data is None:
        assert model.inputs[0].shape is not None
        shape = (arguments.samples, *model.inputs[0].shape[1:])
        samples = np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)
        data = open_data((samples, np.zeros(arguments.samples, np.int64)), model.inputs)
    else:
        data = open_dataset(request, model, request.data)
    target = open_target(arguments.target)
    lowered = target.lowered(model)
    layers = Workload.of(target, lowered, data).layers
    engine = LiteRTEngine(threads=arguments.threads)
    return Bench(lowered, data, layers, target.tensors(lowered, layers), engine, arguments.batch_size)


def _model(name: str) -> Model:
    if name != MOBILENET:
        return open_model(name)
    import keras

    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{MOBILENET}.keras"
        keras.applications.MobileNetV2(weights=None).save(path)
        return open_model(path)


def _peak(run: Callable[[], None]) -> int:
    """The most that is held at once, bytes."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _report(bench: Bench, seconds: Mapping[str, Sequence[float]], size: int, peak: int) -> None:
    fp32 = next(iter(seconds.values()))
    print(f"{bench.model.name}: {len(bench.tensors)} tensors, {len(bench.data)} samples, ", end="")
    print(
        f"{median(fp32) / len(bench.data) * 1000:.3f} ms each = 1 (median), {min(fp32) * 1000:.0f} ms in all at least"
    )
    for name, each in seconds.items():
        print(f"{name:<44}{median(each) / median(fp32):>8.2f}{min(each) / min(fp32):>8.2f}")
    print(f"{'statistics.npz with channels, MB':<44}{size / 2**20:>8.2f}")
    print(f"{'peak memory of calibration, MB':<44}{peak / 2**20:>8.1f}")


if __name__ == "__main__":
    main()
