"""The calibration pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

from autoquant.calibration.distribution import Exact
from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.calibration.record import Calibrator
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.statistics import Statistics
from autoquant.errors import DataError, PlanError
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.evaluation.passes import PART, CalibrationRunner, batches_in, part_size
from autoquant.model.layer import Layer
from autoquant.model.model import InputSpec, Model, Program
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph
from autoquant.tuning.inputs import open_splits
from autoquant.tuning.study.model_request import DataRequest


@pytest.fixture(scope="module")
def opened(tiny: Tiny) -> tuple[Model, dict[str, Layer]]:
    model = open_model(tiny.model)
    return model, {layer.name: layer for layer in survey_graph(model.graph).layers}


class Watched:
    """A runner that keeps what is fed to it."""

    def __init__(self, runner: Runner, fed: list[Mapping[str, NDArray[Any]]]) -> None:
        self.runner, self.fed = runner, fed

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        self.fed.append(inputs)
        return self.runner(inputs)

    def close(self) -> None:
        self.runner.close()


class Watching(TensorFlowEngine):
    """Keeps what is fed while calibrating: first the one sample that says how many make a part."""

    def __init__(self) -> None:
        self.opened = 0
        self.fed: list[Mapping[str, NDArray[Any]]] = []

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> Any:
        self.opened += 1
        return Watched(super().open_graph(graph, fetches), self.fed)


def test_statistics_are_of_the_float_model(tiny: Tiny, opened: tuple[Model, dict[str, Layer]]) -> None:
    """Every layer's input, against a plain run of the samples that were fed."""
    model, layers = opened
    engine, seen = Watching(), []
    data = open_data(tiny.calibration, model.inputs)
    calibration = CalibrationRunner(engine, data, 30, lambda done, total: seen.append((done, total)))
    statistics = calibration.statistics(model, layers, [2, 1])
    images = np.concatenate([inputs["image"] for inputs in engine.fed[1:]])
    tensors = [layer.activations[0] for layer in layers.values()]
    runner = TensorFlowEngine().open_graph(model.graph, tensors)
    for batch_num in (1, 2):
        whole = runner({"image": images[: 30 * batch_num]})
        for tensor in tensors:
            sketch = statistics.distribution(tensor, batch_num)
            assert sketch.count == whole[tensor].size
            assert sketch.low == pytest.approx(whole[tensor].min(), rel=1e-6)
            assert sketch.high == pytest.approx(whole[tensor].max(), rel=1e-6)
    assert len(images) == len({image.tobytes() for image in images}) == 60
    assert seen[-1] == (60, 60)


def test_samples_come_from_all_over_the_data(opened: tuple[Model, dict[str, Layer]]) -> None:
    """A folder of images is sorted by class: its first batch must not be what one batch is."""
    model, layers = opened
    values = np.arange(300, dtype=np.float32)
    data = open_data((np.broadcast_to(values[:, None, None, None], (300, 8, 8, 2)), None), model.inputs)
    engine = Watching()
    CalibrationRunner(engine, data, 50).statistics(model, layers, [1, 3])
    fed = np.concatenate([inputs["image"][:, 0, 0, 0] for inputs in engine.fed[1:]])
    for batch in (fed[:50], fed[50:150]):
        assert np.histogram(batch, bins=3, range=(0, 300))[0].min() >= len(batch) // 6
    again = Watching()
    CalibrationRunner(again, data, 50).statistics(model, layers, [1, 3])
    np.testing.assert_array_equal(np.concatenate([i["image"][:, 0, 0, 0] for i in again.fed[1:]]), fed)


def test_too_little_calibration_data(tiny: Tiny, opened: tuple[Model, dict[str, Layer]]) -> None:
    model, layers = opened
    data = open_data(tiny.calibration, model.inputs)
    with pytest.raises(DataError, match="holds 4 batches of 20, but batch_num is 5; give more calibration data"):
        CalibrationRunner(TensorFlowEngine(), data, 20).statistics(model, layers, [1, 5])
    assert batches_in(data, 20) == 4


@pytest.mark.parametrize(
    ("shape", "made", "size"),
    [
        ((None, 4), PART // 20, 20),
        ((None, 4), PART // 20 + 1, 19),
        ((None, 4), 3 * PART, 1),
        (None, PART // 20, 20),
        ((1, 4), PART // 20, 20),
        ((6, 4), PART // 2, 12),
        ((6, 4), 3 * PART, 6),
    ],
)
def test_parts_fit_memory_and_a_fixed_batch(
    opened: tuple[Model, dict[str, Layer]], shape: tuple[int | None, int] | None, made: int, size: int
) -> None:
    """`made` are the bytes of activations of one sample, or of one batch where it is fixed."""
    model, _ = opened
    data = open_data((np.zeros((3, 4), np.float32), None), [InputSpec("x", np.dtype(np.float32), (None, 4))])
    fed = []

    class Fake:
        def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            fed.append(inputs["x"].shape)
            return {"y": np.broadcast_to(np.int8(0), (made - 40,)), "z": np.zeros(10, np.float32)}

        def close(self) -> None:
            """Nothing to close."""

    fixed = replace(model, inputs=(InputSpec("x", np.dtype(np.float32), shape),))
    assert part_size(fixed, Fake(), data) == size
    assert fed == [(1, 4)]


def test_kept_statistics_are_used_only_for_what_they_are_of(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path
) -> None:
    model, layers = opened
    data = open_data(tiny.calibration, model.inputs)

    engine = Watching()

    def run(*, batch_size: int = 20, data: Dataset = data) -> Statistics:
        calibration = CalibrationRunner(engine, data, batch_size)
        return calibration.statistics(model, layers, [1], cache=tmp_path / "statistics.npz")

    first = run()
    again = run()
    assert engine.opened == 1
    for one, other in zip(
        again.distribution("image", 1).values(), first.distribution("image", 1).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    run(batch_size=10)
    run(batch_size=10, data=open_data(tiny.evaluation, model.inputs))
    assert engine.opened == 3


def test_statistics_cached_without_channels_are_not_used_for_them(
    tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path
) -> None:
    model, layers = opened
    data, engine = open_data(tiny.calibration, model.inputs), Watching()
    cache = tmp_path / "statistics.npz"
    runs = [
        CalibrationRunner(engine, data, 20).statistics(model, layers, [1], cache=cache, balanced=balanced)
        for balanced in ([], ["conv"], ["conv", "dense"], ["dense", "conv"])
    ]
    assert engine.opened == 3
    found = [statistics.channels("image", -1, 1).largest.tolist() for statistics in runs[1:]]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("exact", [False, True])
def test_channels_of_the_layers_to_balance(tiny: Tiny, opened: tuple[Model, dict[str, Layer]], exact: bool) -> None:
    """Per-channel maxima are those of the values themselves."""
    model, layers = opened
    data, engine = open_data(tiny.calibration, model.inputs), Watching()
    statistics = CalibrationRunner(engine, data, 20).statistics(
        model, layers, [1], balanced=["conv", "dense"], exact=exact
    )
    images = np.concatenate([inputs["image"] for inputs in engine.fed[1:]])
    expected = np.abs(images).max(axis=(0, 1, 2))
    np.testing.assert_array_equal(statistics.channels("image", -1, 1).largest, expected)
    assert len(statistics.channels(layers["dense"].activations[0], -1, 1).each) == 8
    with pytest.raises(PlanError, match="was not calibrated channel by channel"):
        statistics.channels(layers["depthwise"].activations[0], -1, 1)


def test_all_values(tiny: Tiny, opened: tuple[Model, dict[str, Layer]], tmp_path: Path) -> None:
    """Of every layer but those for which a sketch serves; nothing of that is written to a file, or read from one."""
    model, layers = opened
    data, engine, cache = open_data(tiny.calibration, model.inputs), Watching(), tmp_path / "statistics.npz"
    CalibrationRunner(TensorFlowEngine(), data, 20).statistics(model, layers, [1], cache=cache)
    written = cache.read_bytes()
    statistics = CalibrationRunner(engine, data, 20).statistics(
        model, layers, [1], cache=cache, exact=True, sketched=["dense"]
    )
    images = np.concatenate([inputs["image"] for inputs in engine.fed[1:]])
    np.testing.assert_array_equal(statistics.distribution("image", 1).values()[0], np.sort(images.ravel()))
    assert isinstance(statistics.distribution(layers["depthwise"].activations[0], 1), Exact)
    assert isinstance(statistics.distribution(layers["dense"].activations[0], 1), Sketch)
    assert cache.read_bytes() == written


def test_both_factors_of_a_product(tmp_path: Path) -> None:
    """A constant factor of three axes is an activation like any other; its values are there once a run."""
    import tensorflow as tf

    matrices = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 2, 5, 3), name="x")
        tf.linalg.matmul(x, tf.constant(matrices, name="factor"), name="product")
    (tmp_path / "product.pb").write_bytes(graph.as_graph_def().SerializeToString())
    model = open_model(tmp_path / "product.pb")
    layers = survey_graph(model.graph).by_name
    values = np.random.default_rng(1).normal(size=(20, 2, 5, 3)).astype(np.float32)
    data = open_data((values, None), model.inputs)
    statistics = CalibrationRunner(TensorFlowEngine(), data, 10).statistics(model, layers, [2], exact=True)
    plan = Plan({"product": layer_plan(layers["product"], LayerPlan(MinMax()))}, 2)
    record = Calibrator(model.graph, layers, statistics).record(plan)
    assert list(record) == ["product", "product:1"]
    for name, array in (("product", values), ("product:1", matrices)):
        scale = np.float32(max(array.max() / 127, -array.min() / 128))
        assert record[name].activation.scale == pytest.approx(float(scale), rel=1e-6)
        assert (record[name].activation.offset, record[name].scale_w) == (0, ())


def test_calibration_data_is_split_off_by_the_seed(tiny: Tiny, opened: tuple[Model, dict[str, Layer]]) -> None:
    model, _ = opened
    request = DataRequest(data=tiny.evaluation, batch_size=10)
    splits = [open_splits(request, model, seed=seed) for seed in (0, 0, 1)]
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


def test_too_little_data_to_split(opened: tuple[Model, dict[str, Layer]]) -> None:
    model, _ = opened
    request = DataRequest(data=(np.zeros((1, 8, 8, 2), np.float32), np.zeros(1, int)))
    with pytest.raises(DataError, match="give --calibration data of its own"):
        open_splits(request, model, seed=0)
