"""What samples take: how often a source is read and its samples hashed in a search, and what a function costs.

    python tests/benchmarks/growth_samples.py [--small]

Searches for LiteRT on a small network, each in a child process, with the same samples from an .npz file, a function,
one without a cache, and one beside a function of as many samples for calibration. Passes are calls of the functions,
which make each sample as it is asked for; given and hashed are samples, as times the evaluation data. CPU is that of
the search, in passes of the function over all of the data. `--small` takes a tenth of the samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import autoquant
from autoquant.array import Array

SAMPLES, BATCH, SIDE, CLASSES = 50_000, 100, 16, 10
CASES = ("npz", "function", "without a cache", "calibration")


class Counted:
    """A function of samples: it counts its calls, the samples it gives, and the CPU seconds it takes."""

    def __init__(self, samples: int, seed: int = 0) -> None:
        self.samples, self.seed = samples, seed
        self.calls = self.given = 0
        self.seconds = 0.0

    def __call__(self) -> Iterator[tuple[Array, Array]]:
        """All batches."""
        self.calls += 1
        for start in range(0, self.samples, BATCH):
            begin = time.process_time()
            made = [sample(self.seed + number) for number in range(start, min(start + BATCH, self.samples))]
            batch = np.stack([image for image, _ in made]), np.asarray([label for _, label in made])
            self.given += len(made)
            self.seconds += time.process_time() - begin
            yield batch


def sample(number: int) -> tuple[Array, int]:
    """An image whose bright column is its class, and noise."""
    rng = np.random.default_rng(number)
    image = rng.normal(0.0, 0.5, (SIDE, SIDE, 1)).astype(np.float32)
    image[:, number % CLASSES] += 0.5
    return image, number % CLASSES


def rows(*, small: bool = False) -> Iterator[str]:
    """The rows of the table."""
    samples = SAMPLES // 10 if small else SAMPLES
    yield f"{samples:,} samples: trials, passes of the function, samples it gave, samples hashed, CPU in passes"
    for case in CASES:
        words = [sys.executable, __file__, "--case", case, "--samples", str(samples)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        counts = f"{found['trials']:4} {found['calls']:4} {found['given']:6.2f} {found['hashed']:6.2f}"
        yield f"{case:16} {counts} {found['cpu']:8.2f}"


def measure(case: str, samples: int, folder: Path, **options: Any) -> dict[str, float]:
    """One search; what it took, in units of the evaluation data and of passes over it."""
    model, function = network(folder / "model.tflite"), Counted(samples)
    calibration = Counted(samples, seed=samples)
    given: Any = function
    if case == "npz":
        x, y = zip(*Counted(samples)(), strict=True)
        np.savez(folder / "data.npz", x=np.concatenate(x), y=np.concatenate(y))
        given = folder / "data.npz"
    if case == "without a cache":
        options["cache"] = 0
    if case == "calibration":
        options["calibration"] = calibration
    plain = Counted(samples)
    list(plain())
    with mock.patch("hashlib.blake2b", wraps=hashlib.blake2b) as hashed:
        begin = time.process_time()
        result = autoquant.search(model, given, target="litert", run=folder / "run", **{"tolerance": "1%", **options})
        spent = time.process_time() - begin
    return {
        "trials": len(result.trials),
        "calls": function.calls + calibration.calls,
        "given": (function.given + calibration.given) / samples,
        "hashed": hashed.call_count / samples,
        "cpu": spent / plain.seconds,
    }


def network(path: Path) -> Path:
    """Write a .tflite that adds up columns."""
    import tensorflow as tf

    from autoquant.model.litert import flatbuffer

    weight = np.zeros((SIDE, SIDE, CLASSES), np.float32)
    weight[:, np.arange(CLASSES), np.arange(CLASSES)] = 1.0
    weight += np.random.default_rng(1).normal(0.0, 0.01, weight.shape)

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 1], tf.float32, name="x")])  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def computed(x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(tf.reshape(x, (-1, SIDE * SIDE)), weight.reshape(-1, CLASSES))}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([computed.get_concrete_function()], tf.Module())
    made = flatbuffer.read(converter.convert())
    flatbuffer.add_signature(made, ["x"], ["y"])
    path.write_bytes(flatbuffer.write(made))
    return path


def main(words: list[str] | None = None) -> None:
    """Print all, or measure one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    given = parser.parse_args(words)
    if not given.case:
        for row in rows(small=given.small):
            print(row, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given.case, given.samples, Path(folder))))


if __name__ == "__main__":
    main()
