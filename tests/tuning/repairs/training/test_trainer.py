"""Trained plans on both targets: what the files hold, what is compared, how far training goes, and when it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import ModelError, OutOfTime, TrialError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.quantization.affine import Affine
from autoquant.targets.base import NO_CORRECTIONS, Corrections
from autoquant.targets.saved_graph import read_saved_graph
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.builder import Builder, builder_of_plan
from autoquant.tuning.repairs.training import trainer as training
from autoquant.tuning.repairs.training.descent import Parameter
from autoquant.tuning.repairs.training.lite_functions import FUNCTIONS
from autoquant.tuning.repairs.training.runner import Descent, TrainingRunner
from autoquant.tuning.repairs.training.student import Trainable
from autoquant.tuning.repairs.training.trainer import HELD_OUT, Trainer, descend, open_both_models
from autoquant.tuning.study.workload import Workload


@dataclass(frozen=True)
class Bench:
    """A model lowered for a target, a plan of it, and what builds that."""

    target: str
    model: Model
    builder: Builder
    plan: Plan
    x: Any

    @property
    def trainer(self) -> Trainer:
        assert self.builder.repairs is not None
        return self.builder.repairs.trainer

    def trained(self, trainer: Trainer | None = None, start: Corrections = NO_CORRECTIONS) -> Corrections:
        compiler = self.builder.prepared(self.plan).compiler
        return (trainer or self.trainer).trained(self.plan, self.model, compiler, start)

    def compiled(self, path: Path, corrections: Corrections) -> Any:
        return self.builder.prepared(self.plan).compiler.compile(self.plan, path, corrections=corrections).record

    def run(self, path: Path) -> Any:
        """What a file gives for the calibration samples."""
        engine = open_engine(TARGETS[self.target].runtime)
        with closing(engine.open_file(path, self.model.program)) as runner:
            return runner({self.model.inputs[0].name: self.x})

    def opened(self, path: Path, start: Corrections) -> tuple[TrainingRunner, Trainable]:
        """The student of the file that starts so."""
        compiler = self.builder.prepared(self.plan).compiler
        made = compiler.compile(self.plan, path, corrections=start)
        layers = {name: self.builder.workload.layers[name] for name in self.plan.int8}
        trainable = Trainable(self.plan.fp16_scales)
        models = open_both_models(
            path, self.plan, made, compiler.reference(self.plan), compiler, layers, start, trainable
        )
        return TrainingRunner(models, trainable, {self.model.inputs[0].name: self.x}), trainable


def bench_of(
    target_name: str, file: Path, x: Any, *, batch_size: int = 32, in_float: Any = (), **settings: Any
) -> Bench:
    whole = {key: settings.pop(key) for key in ("equalize", "fp16_scales") if key in settings}
    target, opened = open_target(target_name), open_model(file)
    model = target.lowered(opened)
    data = open_data((x, None), opened.inputs)
    workload = Workload.of(target, model, data)
    wanted = LayerPlan(MinMax(), **settings)
    plans = {
        name: None if name in in_float else layer_plan(layer, wanted)
        for name, layer in workload.layers.items()
        if not layer.tensor_only
    }
    plan = Plan(plans, 1, training=True, **whole)
    builder = builder_of_plan(
        plan, model, workload, target, open_engine(TARGETS[target_name].runtime), data, batch_size=batch_size
    )
    return Bench(target_name, builder.prepared(plan).model, builder, builder.completed(plan), x)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps of few samples, which go far."""
    monkeypatch.setattr(training, "STEPS", 12)
    monkeypatch.setattr(training, "SAMPLES", 16)
    monkeypatch.setattr(training, "EVERY", 4)
    monkeypatch.setattr(training, "RATE", 0.05)


@pytest.fixture(scope="module")
def images(tiny: Tiny) -> Any:
    return np.load(tiny.calibration)["x"]


@pytest.fixture(params=sorted(TARGETS))
def bench(request: Any, tiny: Tiny, images: Any) -> Bench:
    return bench_of(request.param, tiny.model, images)


def weights_in(bench: Bench, path: Path) -> Mapping[str, Any]:
    """The integers of the weight of each layer in a file."""
    if bench.target == "tensorflow":
        graph = read_saved_graph(path).graph
        return {name: graph.constant(f"{name}/weight_quant/weight") for name in bench.plan.int8}
    lite, model = bench.model.program, flatbuffer.read(path.read_bytes())
    assert isinstance(lite, LiteGraph)
    tensors, found = model.subgraphs[0].tensors, {}
    makers = {int(tensor): op for op in model.subgraphs[0].operators for tensor in op.outputs}
    for name in bench.plan.int8:
        kind, index, _ = lite.operator(name)
        op = makers[int(lite.operators[index].outputs[0])]
        found[name] = flatbuffer.value_of(model, tensors[op.inputs[KINDS[kind].weight or 0]])
    return found


def test_the_file_holds_what_was_trained_and_nothing_else_changes(bench: Bench, tmp_path: Path) -> None:
    found = bench.trained()
    plain, trained = tmp_path / "plain.tflite", tmp_path / "trained.tflite"
    before, after = bench.compiled(plain, NO_CORRECTIONS), bench.compiled(trained, found)
    assert before.keys() == after.keys() == bench.plan.int8.keys()
    was, now = weights_in(bench, plain), weights_in(bench, trained)
    for name, entry in after.items():
        key = name if bench.target == "tensorflow" else bench.builder.workload.layers[name].activations[0]
        assert replace(entry, activation=before[name].activation) == before[name]
        assert entry.activation.offset == before[name].activation.offset
        if key in found.activations:
            assert entry.activation == found.activations[key]
        np.testing.assert_array_equal(now[name], found.weights[name])
        assert np.abs(now[name].astype(int) - was[name]).max() <= 1
    assert any((now[name] != was[name]).any() for name in after)
    assert any(after[name].activation != before[name].activation for name in after)
    assert found.biases.keys() <= bench.plan.int8.keys() and any(np.abs(b).max() > 0 for b in found.biases.values())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"channel_wise": False, "in_float": ("depthwise",)},
        {"weight_bits": 6, "asymmetric": False},
        {"dmq": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_student_computes_what_the_file_does(
    tiny: Tiny, images: Any, tmp_path: Path, target: str, settings: Any
) -> None:
    """Before training, and after it with what that gave."""
    bench = bench_of(target, tiny.model, images, equalize="dmq" not in settings, **settings)
    found = bench.trained()
    (output,) = bench.model.program.outputs
    for corrections in (NO_CORRECTIONS, found):
        path = tmp_path / bench.builder.file_name
        runner, trainable = bench.opened(path, corrections)
        with closing(runner):
            start = {name: one.start for name, one in trainable.parameters.items()}
            (computed,) = runner.quantized_outputs(start, {bench.model.inputs[0].name: images}).values()
        wanted = bench.run(path)[output]
        # In a .tflite the output is rounded too. Of sums that float32 rounds to the other side of a step a few differ.
        rounded = np.diff(np.unique(wanted)).min() / 2 if target == "litert" else 0.0
        beyond = np.maximum(np.abs(computed - wanted) - rounded, 0.0)
        assert np.median(beyond) < 1e-4 * np.abs(wanted).max()
        assert np.quantile(beyond, 0.97) < 0.03 * np.abs(wanted).max()
    if "weight_bits" in settings and target == "tensorflow":
        assert min(found.weights["conv"].min(), -32) >= -32 and found.weights["conv"].max() <= 31


def test_what_is_trained_is_nearer_to_the_float_model_on_samples_held_out(bench: Bench, tmp_path: Path) -> None:
    found = bench.trained()
    assert found is not NO_CORRECTIONS
    samples = bench.trainer.calibration.samples(len(bench.x))
    held = {name: values[: len(bench.x) // HELD_OUT] for name, values in samples.items()}
    losses = []
    for corrections in (NO_CORRECTIONS, found):
        runner, trainable = bench.opened(tmp_path / bench.builder.file_name, corrections)
        with closing(runner):
            losses.append(runner.loss({name: one.start for name, one in trainable.parameters.items()}, held))
    assert losses[1] < 0.95 * losses[0]


def test_the_same_again(bench: Bench) -> None:
    first, second = bench.trained(), bench.trained()
    assert first.activations == second.activations
    for one, other in ((first.weights, second.weights), (first.biases, second.biases)):
        lists = [{name: values.tolist() for name, values in values_of.items()} for values_of in (one, other)]
        assert lists[0] == lists[1]


class Steps:
    """In the place of two models: losses on the samples held out, by how often they were asked for."""

    def __init__(self, *losses: float) -> None:
        self.losses = list(losses)

    def loss(self, values: Any, samples: Any) -> float:
        return self.losses.pop(0)

    def descent(self, values: Any, samples: Any) -> Descent:
        return Descent(1.0, {"one": np.ones(1)})


@pytest.mark.parametrize(
    ("losses", "best"),
    [((1.0, 2.0, 0.5, 0.7), 8), ((1.0, 1.0, 3.0, 1.5), 0), ((1.0, 0.97, 0.96, 0.99), 0), ((1.0, 0.9, 0.8, np.nan), 8)],
)
def test_the_best_step_on_samples_held_out_is_taken(losses: Any, best: int) -> None:
    """Or none; the rate is known and so is where Adam gets with it on a slope."""
    samples, done = {"x": np.zeros((40, 1))}, list[Any]()
    parameters = {"one": Parameter(np.zeros(1, np.float32), 1.0)}
    found = descend(Steps(*losses), parameters, samples, samples, lambda *at: done.append(at))  # type: ignore[arg-type]
    assert done == [(step, 12) for step in range(13)]
    if not best:
        assert found is None
        return
    rates = 0.05 * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
    assert found is not None
    np.testing.assert_allclose(found["one"], -rates[:best].sum(), rtol=1e-5)


def test_few_samples_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PASSES", 2)
    samples, done = {"x": np.zeros((40, 1))}, list[Any]()
    parameters = {"one": Parameter(np.zeros(1, np.float32), 1.0)}
    descend(Steps(*[1.0] * 9), parameters, samples, samples, lambda *at: done.append(at))  # type: ignore[arg-type]
    assert done[-1] == (5, 5)  # of 16 samples, twice 40


def test_without_numbers_nothing_is_trained() -> None:
    parameters = {"one": Parameter(np.zeros(1, np.float32), 1.0)}
    samples = {"x": np.zeros((4, 1))}
    with pytest.raises(TrialError, match=r"training: .*no numbers.*; set training to false"):
        descend(Steps(np.nan), parameters, samples, samples, lambda *at: None)  # type: ignore[arg-type]


class Untouchable:
    """A compiler that must not be needed."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("it was computed again")


def test_what_was_trained_is_cached_under_a_key_of_its_own(bench: Bench, tmp_path: Path) -> None:
    trainer = replace(bench.trainer, cache=tmp_path / "kept")
    first = bench.trained(trainer)
    again = trainer.trained(bench.plan, bench.model, Untouchable(), NO_CORRECTIONS)
    assert again.activations == first.activations and again.weights.keys() == first.weights.keys()
    for name, values in first.weights.items():
        assert again.weights[name].dtype == np.int8
        np.testing.assert_array_equal(again.weights[name], values)
    for name, values in first.biases.items():
        np.testing.assert_array_equal(again.biases[name], values)
    other = replace(bench.plan, bias_correction="analytic")
    with pytest.raises(AssertionError, match="computed again"):
        trainer.trained(other, bench.model, Untouchable(), NO_CORRECTIONS)


def test_time_that_is_over_ends_it_and_nothing_is_cached(bench: Bench, tmp_path: Path) -> None:
    told = list[int]()

    def on_progress(done: int, total: int) -> None:
        told.append(done)
        if done == 3:
            raise OutOfTime

    calibration = replace(bench.trainer.calibration, on_progress=on_progress)
    with pytest.raises(OutOfTime):
        bench.trained(replace(bench.trainer, calibration=calibration, cache=tmp_path / "kept"))
    assert told == [0, 1, 2, 3]
    assert not list(tmp_path.rglob("*.npz"))


def test_too_few_samples(tiny: Tiny, images: Any) -> None:
    bench = bench_of("tensorflow", tiny.model, images[:3], batch_size=3)
    with pytest.raises(TrialError, match=r"training: takes 4 calibration samples at least, got 3; give more .*false"):
        bench.trained()


def saved(folder: Path, make: Any, shape: Any) -> Path:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        make(tf, tf.compat.v1.placeholder(tf.float32, shape, name="x"))
    path = folder / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def weight(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("between", ["no gradient", "not known", "loop"])
def test_an_operator_without_a_gradient_ends_the_way_back(tmp_path: Path, between: str) -> None:
    """The layers before it are trained by their own results."""

    def stopped(tf: Any, t: Any) -> Any:
        if between == "no gradient":
            return tf.cast(tf.raw_ops.Bucketize(input=t, boundaries=[0.5, 1.0, 2.0]), tf.float32)
        if between == "not known":
            return tf.raw_ops.ResizeArea(images=t, size=(4, 4))
        return tf.while_loop(lambda n, t: n < 3, lambda n, t: (n + 1, tf.tanh(t)), (0, t))[1]

    def network(tf: Any, x: Any) -> None:
        t = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weight(3, 3, 2, 4), 1, "SAME", name="one"), weight(4)))
        t = tf.reshape(stopped(tf, t), (-1, 64))
        tf.nn.bias_add(tf.matmul(t, weight(64, 3), name="two"), weight(3), name="y")

    x = np.random.default_rng(0).normal(size=(40, 4, 4, 2)).astype(np.float32)
    bench = bench_of("tensorflow", saved(tmp_path, network, (None, 4, 4, 2)), x, batch_size=40)
    runner, trainable = bench.opened(tmp_path / "net_quantized.pb", NO_CORRECTIONS)
    with closing(runner):
        found = runner.descent({name: one.start for name, one in trainable.parameters.items()}, {"x": x})
    moved = {name: np.abs(gradient).max() for name, gradient in found.gradients.items()}
    assert len(moved) == 6  # scales, weights and biases; whole numbers need no other scale
    assert all(size > 0 for name, size in moved.items() if not name.startswith("scale"))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_fixed_batch_size_groups_and_several_outputs(target: str, tmp_path: Path) -> None:
    """The last batch is filled up; what is no number is not compared."""

    def network(tf: Any, x: Any) -> None:
        t = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weight(3, 3, 2, 4), 1, "SAME", name="one"), weight(4)))
        t = tf.nn.conv2d(t, weight(3, 3, 2, 4), 1, "SAME", name="groups") + x[..., :1]
        t = tf.reshape(t, (4, 64))
        scores = tf.nn.bias_add(tf.matmul(t, weight(64, 3), name="two"), weight(3), name="scores")
        tf.argmax(scores, axis=-1, name="best", output_type=tf.int32)
        tf.tanh(scores, name="y")

    x = np.random.default_rng(0).normal(size=(38, 4, 4, 2)).astype(np.float32)
    path = saved(tmp_path, network, (4, 4, 4, 2))
    bench = bench_of(target, path, x, batch_size=38)
    bench.trained()
    runner, trainable = bench.opened(tmp_path / bench.builder.file_name, NO_CORRECTIONS)
    with closing(runner):
        found = runner.descent({name: one.start for name, one in trainable.parameters.items()}, {"x": x})
    assert set(bench.plan.int8) == {"one", "groups", "two"}
    for name in bench.plan.int8:
        assert np.abs(found.gradients[f"weight {name}"]).max() > 0


def test_an_operator_of_a_tflite_that_is_not_known_is_named(tiny: Tiny, images: Any, monkeypatch: Any) -> None:
    bench = bench_of("litert", tiny.model, images)
    known = {kind: one for kind, one in FUNCTIONS.items() if kind != "DEPTHWISE_CONV_2D"}
    monkeypatch.setattr("autoquant.tuning.repairs.training.trainer.FUNCTIONS", known)
    with pytest.raises(ModelError, match=r"DEPTHWISE_CONV_2D: .*gradient.*; set training to false"):
        bench.trained()


def test_a_model_that_tensorflow_computes_otherwise_is_refused(bench: Bench, monkeypatch: Any) -> None:
    if bench.target != "litert":
        pytest.skip("the same TensorFlow")
    wrong = {**FUNCTIONS, "CONV_2D": lambda inputs, options: 1.1 * FUNCTIONS["CONV_2D"](inputs, options)}
    monkeypatch.setattr("autoquant.tuning.repairs.training.lite_functions.FUNCTIONS", wrong)
    with pytest.raises(TrialError, match=r"training: TensorFlow computes '.*' otherwise than LiteRT, by up to"):
        bench.trained()


def test_half_scales(tiny: Tiny, images: Any) -> None:
    found = bench_of("tensorflow", tiny.model, images, fp16_scales=True).trained()
    scales = [one.scale for one in found.activations.values()]
    assert scales and all(float(np.float16(scale)) == scale for scale in scales)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_scales_of_powers_of_two_stay_such(
    target: str, tiny: Tiny, images: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """They move by factors of two, those of activations; the file has what was trained."""
    monkeypatch.setattr(training, "RATE", 0.1)
    bench = bench_of(target, tiny.model, images, power_of_two=True)
    plain = bench.compiled(tmp_path / "plain", NO_CORRECTIONS)
    found = bench.trained()
    record = bench.compiled(tmp_path / "trained", found)
    assert found.activations
    for name, own in record.items():
        assert np.log2(own.activation.scale).is_integer()
        assert own.activation.scale / plain[name].activation.scale in (0.5, 1.0, 2.0)
        assert own.scale_w == plain[name].scale_w


def test_memory_is_bounded_by_parts_of_a_step(bench: Bench, tmp_path: Path, monkeypatch: Any) -> None:
    """Loss and gradients are the same, but for the order of sums."""
    samples = {bench.model.inputs[0].name: bench.x[:22]}
    found = []
    for memory in (1 << 28, 1 << 16):
        monkeypatch.setattr("autoquant.tuning.repairs.training.runner.MEMORY", memory)
        runner, trainable = bench.opened(tmp_path / bench.builder.file_name, NO_CORRECTIONS)
        with closing(runner):
            assert (runner.part >= 22) == (memory == 1 << 28)
            found.append(runner.descent({name: one.start for name, one in trainable.parameters.items()}, samples))
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-4)
    for name, gradient in found[0].gradients.items():
        np.testing.assert_allclose(gradient, found[1].gradients[name], rtol=1e-2, atol=1e-3 * np.abs(gradient).max())


def test_tensors_that_share_a_scale_keep_sharing_it(tmp_path: Path, images: Any) -> None:
    """A reshaped tensor has the trained scale of what it was before, in the file."""

    def network(tf: Any, x: Any) -> None:
        t = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weight(3, 3, 2, 4), 2, "SAME", name="one"), weight(4)))
        t = tf.reshape(t, (-1, 64))
        tf.nn.bias_add(tf.matmul(t, weight(64, 3), name="two"), weight(3), name="y")

    bench = bench_of("litert", saved(tmp_path, network, (None, 8, 8, 2)), images)
    assert isinstance(bench.model.program, LiteGraph)
    lite = bench.model.program
    (reshape,) = (op for index, op in enumerate(lite.operators) if lite.kind(index) == "RESHAPE")
    source, result = lite.name_of(int(reshape.inputs[0])), lite.name_of(int(reshape.outputs[0]))
    path = tmp_path / "net_int8.tflite"
    runner, trainable = bench.opened(path, NO_CORRECTIONS)
    runner.close()
    assert source in trainable.affines and result not in trainable.affines
    given = Affine(float(np.float32(1.125 * trainable.affines[source].scale)), trainable.affines[source].offset)
    record = bench.compiled(path, Corrections(activations={source: given}))
    assert record["two"].activation == given
    tensors = flatbuffer.read(path.read_bytes()).subgraphs[0].tensors
    for index in (int(reshape.inputs[0]), int(reshape.outputs[0])):
        assert (float(tensors[index].quantization.scale[0]), int(tensors[index].quantization.zeroPoint[0])) == (
            given.scale,
            given.offset,
        )
