"""What loading costs an evaluation, as ratios of passes over the same samples with the same model, from one run.

    python tests/benchmarks/data_loading.py [--images N] [--side PIXELS] [--width CHANNELS] [--engine NAME] [--repeat N]

A folder of JPEGs of twice the side is written, and a small convolutional network of random weights. A plain pass
reads, decodes, resizes, preprocesses, runs and scores in one thread, one batch after the other. Against it stand the
first pass of `evaluate`, which decodes on all cores while the model runs, and a later one, which finds the images
decoded. Arrays of uint8 in memory, which are only preprocessed, show what the threads cost where there is little to
gain. The medians of N interleaved repetitions are compared, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Batch, Sample, stacked
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.images import ImageForm, decode_image
from autoquant.evaluation.data.preprocessing import KERAS
from autoquant.evaluation.engines.engine import Runner, run_batch
from autoquant.evaluation.engines.table import ENGINES, open_engine
from autoquant.evaluation.metrics.metric import Score
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.model import Model
from autoquant.model.open import open_model

BATCH = 32
CLASSES = 4


@dataclass(frozen=True)
class OneByOne:
    """The images of a folder, decoded in the reader's thread, one after the other, in every pass."""

    name: str
    form: ImageForm
    has_labels: bool = True
    digest: str = ""

    def __len__(self) -> int:
        return len(self._files)

    def hashes(self, indices: Array | None) -> Array:
        """None are asked for."""
        raise NotImplementedError

    def column(self, name: str, option: str) -> Array:
        """None is asked for."""
        raise NotImplementedError

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """All images."""
        assert indices is None
        return stacked(map(self._sample, self._files), size)

    @property
    def _files(self) -> list[Path]:
        return sorted(Path(self.name).glob("*/*.jpg"))

    def _sample(self, file: Path) -> Sample:
        image = decode_image(str(file), file.read_bytes(), self.form)
        return Sample({self.form.input: image}, np.asarray(int(file.parent.name)))


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="tensorflow")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "images", arguments.images, 2 * arguments.side)
        model = _model(folder / "net.pb", arguments.side, arguments.width)
        runner = open_engine(arguments.engine).open_graph(model.program)
        _report(arguments.images, arguments.side, _measure(model, runner, folder / "images", arguments.repeat))
        runner.close()


def _measure(model: Model, runner: Runner, folder: Path, repeat: int) -> dict[str, list[float]]:
    """Seconds of each kind of pass, in each repetition."""
    plain = Dataset(OneByOne(str(folder), ImageForm.of("", model.inputs, None)), model.inputs, KERAS["tf"])
    raw = list(plain.source.read(None, BATCH))
    images = np.concatenate([batch.inputs["image"] for batch in raw])
    labels = np.concatenate([batch.labels for batch in raw if batch.labels is not None])
    arrays = open_data((images, labels), model.inputs, preprocess=plain.preprocess)
    batches = list(arrays.batches(BATCH))
    found: dict[str, list[float]] = {}

    def timed(part: str, call: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        call()
        found.setdefault(part, []).append(time.perf_counter() - begin)

    for _ in range(repeat):
        opened = open_data(folder, model.inputs, preprocess=KERAS["tf"])
        timed("images, plain", lambda: _plain_pass(runner, plain))
        timed("images, first", partial(_pass, runner, opened))
        timed("images, later", partial(_pass, runner, opened))
        timed("arrays, plain", lambda: _plain_pass(runner, arrays))
        timed("arrays", lambda: _pass(runner, arrays))
        timed("model alone", lambda: [run_batch(runner, batch) for batch in batches])
    return found


def _plain_pass(runner: Runner, data: Dataset) -> None:
    metric = open_metric("top1")
    rows = [metric.measure(run_batch(runner, batch), batch.labels, None) for batch in data.batches(BATCH)]
    metric.combine(np.concatenate(rows))


def _pass(runner: Runner, data: Dataset) -> None:
    baseline = Baseline("", Score(0.0, np.zeros(len(data))))
    EvaluationSubset.of(data, open_metric("top1"), baseline).evaluate(runner, batch_size=BATCH)


def _report(images: int, side: int, found: dict[str, list[float]]) -> None:
    seconds = {part: median(values) for part, values in found.items()}
    print(f"{images} images of {2 * side} x {2 * side}, model of {side} x {side}, batches of {BATCH}")
    print(f"images, plain: {seconds['images, plain']:.2f} s; arrays, plain: {seconds['arrays, plain']:.2f} s")
    print(f"{'pass':<16}{'seconds, plain = 1':>20}{'times as fast':>15}")
    for part, taken in seconds.items():
        whole = seconds["arrays, plain" if part.startswith("arrays") else "images, plain"]
        print(f"{part:<16}{taken / whole:>20.3f}{whole / taken:>15.2f}")


def _write_images(folder: Path, count: int, side: int) -> None:
    """Smooth images with some noise, as photographs have them; in folders 0, 1, ... by class."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / str(number % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        coarse = tf.image.resize(rng.integers(0, 256, (8, 8, 3)), (side, side), method="bicubic").numpy()
        image = np.clip(coarse + rng.normal(scale=6.0, size=coarse.shape), 0, 255).astype(np.uint8)
        (place / f"{number:06}.jpg").write_bytes(tf.io.encode_jpeg(image, quality=90).numpy())


def _model(path: Path, side: int, width: int) -> Model:
    """Three convolutions of stride 2, the mean, and a layer of classes."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, side, side, 3), name="image")
        for channels in ((3, width), (width, width), (width, 2 * width)):
            x = tf.nn.relu(tf.nn.conv2d(x, rng.normal(scale=0.1, size=(3, 3, *channels)).astype(np.float32), 2, "SAME"))
        weights = rng.normal(size=(2 * width, CLASSES)).astype(np.float32)
        tf.identity(tf.linalg.matmul(tf.reduce_mean(x, axis=(1, 2)), weights), name="scores")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return open_model(path)


if __name__ == "__main__":
    main()
