"""Weights whose errors make up for one another: against a network in float64 and Optimal Brain Quantization."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import SavedLite
from optimal_brain import squared_errors, textbook
from repair_bench import COUNT, LAYERS, STEPS, Bench, Untouchable, made_bench

import autoquant
from autoquant.calibration.plan import Plan
from autoquant.errors import TrialError
from autoquant.evaluation.engines.table import open_engine
from autoquant.targets.saved_graph import read_saved_graph
from autoquant.targets.table import TARGETS
from autoquant.tuning.repairs.weight_rounding import Rounder

KINDS = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}
AXES = {"conv": (3,), "depthwise": (2, 3), "dense": (1,)}


@pytest.fixture(scope="module")
def x() -> Any:
    """Images that are alike, so that what a layer reads is correlated."""
    random = np.random.default_rng(5)
    mixed = np.tensordot(random.normal(size=(COUNT, 5)), random.normal(size=(5, 6, 6, 2)), axes=1)
    return np.abs(mixed + 0.1 * random.normal(size=mixed.shape)).astype(np.float32)


@pytest.fixture(scope="module", params=sorted(TARGETS))
def bench(request: Any, file: Path, x: Any) -> Bench:
    return made_bench(request.param, file, x)


def in_tensorflow(name: str, weight: Any) -> Any:
    """A weight of a .tflite in the layout of TensorFlow."""
    if name == "conv":
        return weight.transpose(1, 2, 3, 0)
    return weight[0][..., None] if name == "depthwise" else weight.T


def integers_in(bench: Bench, path: Path) -> dict[str, Any]:
    """The integers of all weights in a saved file, in the layout of the target."""
    if bench.runtime == "tensorflow":
        graph = read_saved_graph(path).graph
        return {name: graph.constant(f"{name}/weight_quant/weight") for name in LAYERS}
    saved = SavedLite(path.read_bytes())
    return {name: saved.value(saved.operator(kind).inputs[1]) for name, kind in KINDS.items()}


def rows_of(name: str, weight: Any) -> Any:
    """A weight in the layout of TensorFlow as (channels, inputs)."""
    return np.moveaxis(weight, AXES[name], range(len(AXES[name]))).reshape(
        weight.shape[-1] if name != "depthwise" else 4, -1
    )


def inputs_of(weights: dict[str, Any], x: Any) -> dict[str, Any]:
    """What the weights of each layer meet in the float model, (groups, rows, inputs), float64."""
    found, data = {}, x.astype(np.float64)
    for name, step in STEPS.items():
        if name == "dense":
            found[name] = data.reshape(1, len(data), -1)
        else:
            windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), axis=(1, 2))  # n h w c kh kw
            channels = windows.shape[3]
            each = windows.reshape(-1, channels, 9)
            found[name] = (
                each.transpose(1, 0, 2) if name == "depthwise" else each.swapaxes(1, 2).reshape(1, len(each), -1)
            )
        data = np.maximum(step(data, weights[name].astype(np.float64)) + weights[f"{name}_bias"], 0.0)
    return found


def moments_of(rows: Any, *, centered: bool) -> Any:
    moved = rows - rows.mean(axis=1, keepdims=True) if centered else rows
    return moved.swapaxes(1, 2) @ moved / rows.shape[1]


def record_and_integers(bench: Bench, plan: Plan) -> tuple[Any, dict[str, Any]]:
    """The record of a plan, and the integers of its weights in the layout of TensorFlow."""
    compiler = bench.builder.prepared(plan).compiler
    found = bench.builder.round_weights(plan)
    if bench.runtime == "litert":
        found = {name: in_tensorflow(name, weight) for name, weight in found.items()}
    return compiler.record(plan), dict(found)


@pytest.mark.parametrize("centered", [False, True], ids=["second moment", "covariance"])
@pytest.mark.parametrize("settings", [{}, {"channel_wise": False}, {"weight_algorithm": "mse"}], ids=str)
def test_integers_are_those_of_optimal_brain_quantization(
    bench: Bench, weights: Any, x: Any, settings: Any, centered: bool
) -> None:
    """Where biases take up the mean of the error, of what differs from the mean alone."""
    correction = "analytic" if centered else "none"
    plan = bench.plan(*LAYERS, bias_correction=correction, weight_rounding="gptq", **settings)
    record, found = record_and_integers(bench, plan)
    lowest, changed = -128 if bench.runtime == "tensorflow" else -127, False
    for name, seen in inputs_of(weights, x).items():
        rows = rows_of(name, weights[name].astype(np.float64)).reshape(len(seen), -1, seen.shape[2])
        scales = np.broadcast_to(np.array(record[name].scale_w), rows.shape[0] * rows.shape[1]).reshape(rows.shape[:2])
        moments = moments_of(seen, centered=centered)
        wanted = [textbook(*one, lowest=lowest, highest=127) for one in zip(rows, scales, moments, strict=True)]
        near = np.clip(np.rint(rows / scales[..., None]), lowest, 127)
        ours = rows_of(name, found[name]).reshape(rows.shape)
        assert (ours == np.array(wanted)).mean() > 0.95  # a value near a tie may fall to the other side of it
        changed |= bool((ours != near).any())
        errors = [squared_errors(rows / scales[..., None] - integers, moments) for integers in (ours, near)]
        assert (errors[0] <= errors[1] * (1 + 1e-5)).all()
    assert changed


def test_factors_of_a_balancer_divide_what_is_read(bench: Bench, weights: Any, x: Any, tmp_path: Path) -> None:
    """The error of the balanced weight on divided inputs is less than that of rounding to nearest."""
    plan = bench.plan(*LAYERS, weight_rounding="gptq", dmq=0.5)
    record, found = record_and_integers(bench, plan)
    balanced = [name for name in LAYERS if record[name].balance]
    assert "depthwise" in balanced
    assert bench.builder.make(plan, tmp_path / "model").record == record
    seen = inputs_of(weights, x)
    compiler = bench.builder.prepared(plan).compiler
    reference, layers = compiler.reference(plan), bench.builder.workload.layers
    for name in balanced:
        factors = np.array(record[name].balance)
        weight: Any = reference.constant(layers[name].weight or "")
        if bench.runtime == "litert":
            weight = in_tensorflow(name, weight)
        else:
            axis = layers[name].operator.input_axis
            weight = weight * factors.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])
        rows = rows_of(name, weight).reshape(len(seen[name]), -1, seen[name].shape[2])
        each = np.repeat(factors, 9).reshape(4, 1, 9) if name == "depthwise" else np.resize(factors, rows.shape[2])
        moments = moments_of(seen[name] / each, centered=False)
        scales = np.array(record[name].scale_w)
        scales = np.broadcast_to(scales, rows.shape[0] * rows.shape[1]).reshape(rows.shape[:2])
        steps = rows / scales[..., None]
        ours, near = rows_of(name, found[name]).reshape(rows.shape), np.clip(np.rint(steps), -128, 127)
        left, was = (squared_errors(steps - integers, moments).sum() for integers in (ours, near))
        assert left < 0.9 * was


@pytest.mark.parametrize("correction", ["none", "analytic", "empirical"])
def test_the_file_has_these_integers_and_all_else_as_before(
    bench: Bench, x: Any, tmp_path: Path, correction: str
) -> None:
    """Biases as they were, or corrected behind the rounded weights; a plain runtime computes nearly what float does."""
    plans = [bench.plan(*LAYERS, bias_correction=correction, weight_rounding=how) for how in ("nearest", "gptq")]
    suffix = "tflite" if bench.runtime == "litert" else "pb"
    paths = [tmp_path / f"{plan.weight_rounding}.{suffix}" for plan in plans]
    nearest, made = (bench.builder.make(plan, path) for plan, path in zip(plans, paths, strict=True))
    assert nearest == made
    found, given = integers_in(bench, paths[1]), bench.builder.round_weights(plans[1])
    before = integers_in(bench, paths[0])
    for name, integers in found.items():
        np.testing.assert_array_equal(integers, given[name])
        assert np.abs(integers.astype(int) - before[name]).max() < 5
    assert any((before[name] != found[name]).any() for name in LAYERS)
    assert paths[0].stat().st_size == paths[1].stat().st_size
    wanted = open_engine(bench.runtime).open_graph(bench.model.program)({"x": x})["y"]
    assert np.linalg.norm(bench.run(paths[1], x) - wanted) < 0.05 * np.linalg.norm(wanted)


@pytest.mark.parametrize("names", [("depthwise",), ("conv", "dense")], ids=str)
def test_layers_in_float_have_no_integers(bench: Bench, names: Any, tmp_path: Path) -> None:
    plan = bench.plan(*names, weight_rounding="gptq")
    assert set(bench.builder.round_weights(plan)) == set(names)
    assert list(bench.builder.make(plan, tmp_path / "model").record) == list(names)


def test_a_layer_depends_on_no_other(bench: Bench) -> None:
    """Whatever else is in INT8."""
    alone, all_together = (
        bench.builder.round_weights(bench.plan(*names, weight_rounding="gptq")) for names in (("dense",), LAYERS)
    )
    np.testing.assert_array_equal(alone["dense"], all_together["dense"])


@pytest.mark.parametrize("bits", [6, 7])
def test_weights_of_fewer_bits(bench: Bench, bits: int) -> None:
    if bench.runtime != "tensorflow":
        pytest.skip("LiteRT has weights of 8 bits")
    plan = bench.plan("conv", weight_rounding="gptq", weight_bits=bits)
    found = bench.builder.round_weights(plan)["conv"]
    assert -(2 ** (bits - 1)) <= found.min() < -(2 ** (bits - 2)) < 2 ** (bits - 2) < found.max() < 2 ** (bits - 1)


def test_integers_are_cached_layer_by_layer_and_moments_are_seen_once(bench: Bench, tmp_path: Path) -> None:
    own = bench.repairs.rounder
    calibration = replace(own.calibration, batch_size=COUNT)
    done: list[tuple[int, int]] = []
    told = replace(calibration, on_progress=lambda *steps: done.append(steps))
    first = Rounder(own.target, own.layers, told, tmp_path / "kept")
    without = replace(calibration, engine=Untouchable(calibration.engine.version))  # type: ignore[arg-type]
    plan = bench.plan(*LAYERS, weight_rounding="gptq")
    variant = bench.builder.prepared(plan)
    found = first.weights(plan, *variant)
    assert done == [(0, 0), (COUNT, COUNT), (1, 3), (2, 3), (3, 3)]
    assert len(list((tmp_path / "kept").iterdir())) == 3
    again = Rounder(own.target, own.layers, without, tmp_path / "kept").weights(plan, *variant)
    assert {name: one.tolist() for name, one in again.items()} == {name: one.tolist() for name, one in found.items()}
    # Other scales of one layer, and another moment of all: what the layers read is known by now.
    first = replace(first, calibration=without)
    for other, files in (
        (replace(plan, layers={**plan.layers, "conv": replace(plan.int8["conv"], channel_wise=False)}), 4),
        (replace(plan, bias_correction="analytic"), 7),
    ):
        first.weights(other, *variant)
        assert len(list((tmp_path / "kept").iterdir())) == files


def test_with_little_memory_it_takes_a_pass_for_each_layer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    own = bench.repairs.rounder
    plan = bench.plan(*LAYERS, weight_rounding="gptq")
    variant, wanted = bench.builder.prepared(plan), own.weights(plan, *bench.builder.prepared(plan))
    monkeypatch.setattr("autoquant.tuning.repairs.weight_rounding.TOGETHER", 1)
    done: list[tuple[int, int]] = []
    told = replace(own.calibration, on_progress=lambda *steps: done.append(steps))
    found = Rounder(own.target, own.layers, told).weights(plan, *variant)
    assert done.count((0, 0)) == 3
    assert {name: one.tolist() for name, one in found.items()} == {name: one.tolist() for name, one in wanted.items()}


def test_layers_with_too_many_inputs_are_named_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoquant.tuning.repairs.weight_inputs.LARGEST", 16)
    own, told = bench.repairs.rounder, list[str]()
    rounder = Rounder(own.target, own.layers, own.calibration, warn=told.append)
    plan = bench.plan(*LAYERS, weight_rounding="gptq")
    for _ in range(2):
        assert set(rounder.weights(plan, *bench.builder.prepared(plan))) == {"depthwise", "dense"}
    assert told == ["rounded to nearest, not by gptq: 'conv': it has 18 inputs, more than 16"]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_inputs_whose_squares_are_beyond_float32_name_the_layer(
    file: Path, x: Any, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoquant.tuning.repairs.weight_inputs.WAITING", 1)
    bench = made_bench(target, file, x)
    plan = bench.plan("conv", weight_rounding="gptq")
    huge = made_bench(target, file, x * np.float32(1e25)).repairs.rounder
    with pytest.raises(TrialError, match="conv: the squares of what it reads are beyond float32"):
        huge.weights(plan, *bench.builder.prepared(plan))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_search_rounds_weights_and_a_config_applies_it_again(
    tiny: Any, regression: Path, tmp_path: Path, target: str
) -> None:
    """The same bytes where a model is lost, and where its config.json is given to `quantize`."""
    space = tmp_path / "space.toml"
    space.write_text(
        "[global]\nbatch_num = 2\nequalize = true\nbias_correction = 'empirical'\nweight_rounding = ['gptq', 'nearest']"
    )
    options: dict[str, Any] = {"metric": "mse", "tolerance": 0.0, "batch_size": 20, "space": space, "target": target}
    run = tmp_path / "run"
    autoquant.search(
        tiny.model, regression, calibration=tiny.calibration, max_trials=2, run=run, sampler="tpe", **options
    )
    facts = json.loads((run / "result.json").read_text())
    words = [trial["why"].rpartition(": ")[2] for trial in facts["all_trials"]]
    assert words == ["weights rounded by gptq", "weights rounded to nearest"]
    (model,) = (path for path in (run / "best").iterdir() if path.suffix in (".pb", ".tflite"))
    best = json.loads((run / "best" / "config.json").read_text())["autoquant"]
    content = model.read_bytes()
    for path in list((run / "best").iterdir()):
        if path.name.startswith("tiny"):
            path.unlink()
    autoquant.resume(run)
    assert model.read_bytes() == content
    lost = next(number for number in (0, 1) if not (run / "trials" / f"000{number}" / model.name).exists())
    made = autoquant.export(run, tmp_path / "out", trial=lost)
    assert made.transferred is not None
    score = json.loads((run / "trials" / f"000{lost}" / "score.json").read_text())["score"]
    assert made.transferred.score == pytest.approx(score, rel=1e-3)
    config = run / "trials" / "0000" / "config.json"
    assert json.loads(config.read_text())["autoquant"]["weight_rounding"] == "gptq"
    again = autoquant.quantize(
        tiny.model, config, tiny.calibration, to=tmp_path / "again", target=target, batch_size=20
    )
    if best.get("weight_rounding") == "gptq":
        assert again.model.read_bytes() == content
