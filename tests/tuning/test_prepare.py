"""What comes before the first trial."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data import open_data
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.model.layers import survey
from autoquant.model.model import InputSpec, open_model
from autoquant.tuning.prepare import PART, batches_in, calibrate, exact_batches, open_samples
from autoquant.tuning.request import DataRequest

ANY_SIZE = InputSpec("image", np.dtype(np.float32), (None, None, None, 1))


def images_of(sizes):
    """A function that gives one image a batch, of these sizes, each full of its number."""
    return lambda: (np.full((1, size, size, 1), number, np.float32) for number, size in enumerate(sizes))


@pytest.mark.parametrize("sizes", [[3] * 40, [3, 3, 4, 4, 4, 3, 5], [3], list(range(2, 9))], ids=str)
@pytest.mark.parametrize("size", [1, 3, 5, PART + 4])
def test_batches_are_exact_whatever_the_shapes(sizes, size: int):
    data = open_data(images_of(sizes), [ANY_SIZE])
    batches = list(exact_batches(data, size))
    counts = [sum(len(part["image"]) for part in parts) for parts in batches]
    assert counts[:-1] == [size] * (len(counts) - 1)
    assert sum(counts) == len(sizes)
    assert len(batches) == batches_in(data, size)
    assert all(len(part["image"]) <= PART for parts in batches for part in parts)
    seen = [int(image[0, 0, 0]) for parts in batches for part in parts for image in part["image"]]
    assert seen == list(range(len(sizes)))


@pytest.fixture(scope="module")
def opened(tiny):
    model = open_model(tiny.model)
    return model, {layer.name: layer for layer in survey(model.graph).layers}


def test_statistics_are_of_the_float_model(tiny, opened):
    """Ranges of the first layer's input from the data itself, of the others from a plain run of everything."""
    model, layers = opened
    data = open_data(tiny.calibration, model.inputs)
    seen = []
    statistics = calibrate(
        TensorFlowEngine(),
        model,
        layers,
        data,
        [2, 1],
        batch_size=30,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    images = np.load(tiny.calibration)["x"]
    tensors = [layer.activation for layer in layers.values()]
    runner = TensorFlowEngine().open_graph(model.graph, tensors)
    for batch_num in (1, 2):
        whole = runner({"image": images[: 30 * batch_num]})
        for tensor in tensors:
            sketch = statistics.sketch(tensor, batch_num)
            assert sketch.count == whole[tensor].size
            assert sketch.low == pytest.approx(whole[tensor].min(), rel=1e-6)
            assert sketch.high == pytest.approx(whole[tensor].max(), rel=1e-6)
    assert statistics.sketch("image", 1).high == images[:30].max()
    assert seen[-1] == (60, 60)


def test_kept_statistics_are_used_only_for_what_they_are_of(tiny, opened, tmp_path):
    model, layers = opened
    data = open_data(tiny.calibration, model.inputs)

    class Counting(TensorFlowEngine):
        runs = 0

        def open_graph(self, graph, fetches=None):
            Counting.runs += 1
            return super().open_graph(graph, fetches)

    def run(**changed):
        options = {"batch_size": 20, "kept": tmp_path / "statistics.npz", **changed}
        return calibrate(Counting(), model, layers, options.pop("data", data), [1], **options)

    first = run()
    again = run()
    assert Counting.runs == 1
    np.testing.assert_array_equal(again.sketch("image", 1).counts, first.sketch("image", 1).counts)
    run(batch_size=10)
    run(batch_size=10, data=open_data(tiny.evaluation, model.inputs))
    assert Counting.runs == 3


def test_calibration_data_is_split_off_by_the_seed(tiny, opened):
    model, _ = opened
    request = DataRequest(data=tiny.evaluation, batch_size=10)
    splits = [open_samples(request, model, batches=3, seed=seed) for seed in (0, 0, 1)]
    digests = [samples.calibration.digest for samples in splits]
    assert digests[0] == digests[1] != digests[2]
    evaluation, calibration = splits[0].evaluation, splits[0].calibration
    assert (len(evaluation), len(calibration)) == (170, 30)
    rows = [
        {image.tobytes() for batch in part.batches(50) for image in batch.inputs["image"]}
        for part in (evaluation, calibration)
    ]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == 200


def test_too_little_data_to_split(opened):
    model, _ = opened
    request = DataRequest(data=(np.zeros((1, 8, 8, 2), np.float32), np.zeros(1, int)))
    with pytest.raises(DataError, match="give --calibration data of its own"):
        open_samples(request, model, batches=3, seed=0)
