"""What comes before the first trial."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data import open_data
from autoquant.evaluation.tensorflow_engine import TensorFlowEngine
from autoquant.model.layers import survey
from autoquant.model.model import InputSpec, open_model
from autoquant.tuning.prepare import PART, batches_in, calibrate, open_samples, part_size
from autoquant.tuning.request import DataRequest


@pytest.fixture(scope="module")
def opened(tiny):
    model = open_model(tiny.model)
    return model, {layer.name: layer for layer in survey(model.graph).layers}


class Watching(TensorFlowEngine):
    """Keeps what is fed while calibrating."""

    def __init__(self):
        self.opened = 0
        self.fed = []

    def open_graph(self, graph, fetches=None):
        self.opened += 1
        runner = super().open_graph(graph, fetches)

        def watched(inputs):
            self.fed.append(inputs)
            return runner(inputs)

        watched.close = runner.close
        return watched


def test_statistics_are_of_the_float_model(tiny, opened):
    """Every layer's input, against a plain run of the samples that were fed."""
    model, layers = opened
    engine, seen = Watching(), []
    statistics = calibrate(
        engine,
        model,
        layers,
        open_data(tiny.calibration, model.inputs),
        [2, 1],
        batch_size=30,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    images = np.concatenate([inputs["image"] for inputs in engine.fed])
    tensors = [layer.activation for layer in layers.values()]
    runner = TensorFlowEngine().open_graph(model.graph, tensors)
    for batch_num in (1, 2):
        whole = runner({"image": images[: 30 * batch_num]})
        for tensor in tensors:
            sketch = statistics.sketch(tensor, batch_num)
            assert sketch.count == whole[tensor].size
            assert sketch.low == pytest.approx(whole[tensor].min(), rel=1e-6)
            assert sketch.high == pytest.approx(whole[tensor].max(), rel=1e-6)
    assert len(images) == len({image.tobytes() for image in images}) == 60
    assert max(len(inputs["image"]) for inputs in engine.fed) <= PART
    assert seen[-1] == (60, 60)


def test_samples_come_from_all_over_the_data(opened):
    """A folder of images is sorted by class: its first batch must not be what one batch is."""
    model, layers = opened
    values = np.arange(300, dtype=np.float32)
    data = open_data((np.broadcast_to(values[:, None, None, None], (300, 8, 8, 2)), None), model.inputs)
    engine = Watching()
    calibrate(engine, model, layers, data, [1, 3], batch_size=50)
    fed = np.concatenate([inputs["image"][:, 0, 0, 0] for inputs in engine.fed])
    for batch in (fed[:50], fed[50:150]):
        assert np.histogram(batch, bins=3, range=(0, 300))[0].min() >= len(batch) // 6
    again = Watching()
    calibrate(again, model, layers, data, [1, 3], batch_size=50)
    np.testing.assert_array_equal(np.concatenate([i["image"][:, 0, 0, 0] for i in again.fed]), fed)


def test_too_little_calibration_data(tiny, opened):
    model, layers = opened
    data = open_data(tiny.calibration, model.inputs)
    with pytest.raises(DataError, match="holds 4 batches of 20, but batch_num is 5; give more calibration data"):
        calibrate(TensorFlowEngine(), model, layers, data, [1, 5], batch_size=20)
    assert batches_in(data, 20) == 4


@pytest.mark.parametrize(
    ("shape", "size"), [((None, 4), PART), (None, PART), ((1, 4), PART), ((6, 4), 12), ((64, 4), 64)]
)
def test_parts_fit_a_fixed_batch(opened, shape, size: int):
    model, _ = opened
    assert part_size(replace(model, inputs=(InputSpec("x", np.dtype(np.float32), shape),))) == size


def test_kept_statistics_are_used_only_for_what_they_are_of(tiny, opened, tmp_path):
    model, layers = opened
    data = open_data(tiny.calibration, model.inputs)

    engine = Watching()

    def run(**changed):
        options = {"batch_size": 20, "kept": tmp_path / "statistics.npz", **changed}
        return calibrate(engine, model, layers, options.pop("data", data), [1], **options)

    first = run()
    again = run()
    assert engine.opened == 1
    np.testing.assert_array_equal(again.sketch("image", 1).counts, first.sketch("image", 1).counts)
    run(batch_size=10)
    run(batch_size=10, data=open_data(tiny.evaluation, model.inputs))
    assert engine.opened == 3


def test_calibration_data_is_split_off_by_the_seed(tiny, opened):
    model, _ = opened
    request = DataRequest(data=tiny.evaluation, batch_size=10)
    splits = [open_samples(request, model, seed=seed) for seed in (0, 0, 1)]
    digests = [samples.calibration.digest for samples in splits]
    assert digests[0] == digests[1] != digests[2]
    evaluation, calibration = splits[0].evaluation, splits[0].calibration
    assert (len(evaluation), len(calibration)) == (160, 40)
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
        open_samples(request, model, seed=0)
