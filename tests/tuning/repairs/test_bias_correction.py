"""Bias corrections against a network computed in float64, on both targets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repair_bench import COUNT, LAYERS, STEPS, Bench, Untouchable, made_bench

import autoquant
from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.targets.table import TARGETS
from autoquant.tuning.repairs.bias_correction import SAMPLES, Corrector, open_pair


def rounded(x: Any, entry: Any) -> Any:
    scale, offset = entry.activation.scale, entry.activation.offset
    return (np.clip(np.rint(x / scale) + offset, -128, 127) - offset) * scale


def on_grid(weight: Any, entry: Any, *, depthwise: bool) -> Any:
    """The weight as INT8 has it, by the scales of a record: one for all, or one for each output channel."""
    scales = np.array(entry.scale_w)
    scales = scales.reshape(-1, 1) if depthwise and len(scales) > 1 else scales
    return np.clip(np.rint(weight / scales), -128, 127) * scales


def mean(values: Any) -> Any:
    return values.reshape(-1, values.shape[-1]).mean(axis=0)


def expected(weights: dict[str, Any], x: Any, record: Any, kind: str) -> dict[str, Any]:
    """The corrections of the layers in a record, one after the other, each behind those before it."""
    plain = quantized = x.astype(np.float64)
    found = {}
    for name, step in STEPS.items():
        weight, bias = weights[name].astype(np.float64), weights[f"{name}_bias"].astype(np.float64)
        result = step(plain, weight) + bias
        if name in record:
            entry = record[name]
            there = on_grid(weight, entry, depthwise=name == "depthwise")
            if kind == "analytic":
                channels = np.ones_like(plain) * (mean(plain) if name != "dense" else plain.mean(axis=0))
                found[name] = -mean(step(channels, there - weight))
                plain = np.maximum(result, 0)
                continue
            steps = entry.activation.scale * np.array(entry.scale_w)
            same = step(rounded(quantized, entry), there) + np.rint(bias / steps) * steps
            found[name] = mean(result - same)
            quantized = np.maximum(same + found[name], 0)
        else:
            quantized = np.maximum(step(quantized, weight) + bias, 0)
        plain = np.maximum(result, 0)
    return found


@pytest.mark.parametrize("settings", [{}, {"channel_wise": False}, {"weight_algorithm": "mse"}], ids=str)
@pytest.mark.parametrize("kind", ["analytic", "empirical"])
def test_corrections_against_float64(
    bench: Bench, weights: Any, x: Any, tmp_path: Path, kind: str, settings: Any
) -> None:
    plan = bench.plan(*LAYERS, bias_correction=kind, **settings)
    record = bench.builder.prepared(plan).compiler.compile(plan, tmp_path / "model").record
    wanted = expected(weights, x, record, kind)
    found = bench.corrections(plan)
    assert list(found) == list(LAYERS)
    for name, values in wanted.items():
        scale = np.abs(values).max()
        assert scale > 1e-4
        # A sum that float32 rounds to the other side of a step moves a mean by that step's share of all.
        np.testing.assert_allclose(found[name], values, atol=0.02 * scale, rtol=1e-3)


@pytest.mark.parametrize("names", [("depthwise",), ("conv", "dense")], ids=str)
def test_layers_in_float_are_not_corrected(bench: Bench, weights: Any, x: Any, tmp_path: Path, names: Any) -> None:
    plan = bench.plan(*names, bias_correction="empirical")
    record = bench.builder.prepared(plan).compiler.compile(plan, tmp_path / "model").record
    found = bench.corrections(plan)
    assert set(found) == set(names)
    if bench.runtime == "tensorflow":  # elsewhere what is between two layers may be INT8 as well
        for name, values in expected(weights, x, record, "empirical").items():
            np.testing.assert_allclose(found[name], values, atol=0.02 * np.abs(values).max())


@pytest.mark.parametrize("settings", [{}, {"channel_wise": False}, {"dmq": 0.5}], ids=str)
def test_means_of_corrected_layers_are_those_of_the_float_model(
    bench: Bench, x: Any, tmp_path: Path, settings: Any
) -> None:
    """Up to the rounding of biases; the file itself, run as it is, gives scores of the same mean."""
    plain, corrected = (bench.plan(*LAYERS, bias_correction=kind, **settings) for kind in ("none", "empirical"))
    means = {}
    for plan in (plain, corrected):
        path = tmp_path / f"{plan.bias_correction}.{'tflite' if bench.runtime == 'litert' else 'pb'}"
        bench.builder.make(plan, path)
        layers = bench.builder.workload.layers
        plain_program = bench.builder.prepared(plan).compiler.reference(plan)
        runner = open_pair(path, plain_program, {name: layers[name] for name in LAYERS}).open()
        means[plan.bias_correction] = {name: np.array(value) for name, value in runner({"x": x}).items()}
        runner.close()
    for name in LAYERS:
        was, now = (np.abs(means[kind][name]).max() for kind in ("none", "empirical"))
        assert now < 0.05 * was
    reference = open_engine(bench.runtime).open_graph(bench.model.program)({"x": x})["y"]
    errors = [mean(bench.run(path, x) - reference) for path in sorted(tmp_path.iterdir()) if path.suffix != ".json"]
    empirical, none = (np.abs(error).max() for error in errors)
    assert empirical < 0.5 * none


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("kind", ["analytic", "empirical"])
def test_a_layer_on_the_grid_of_int8_needs_no_correction(target: str, kind: str, tmp_path: Path) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    weight = rng.integers(-126, 127, (3, 3, 2, 4)) / np.float32(64)
    weight[0, 0, 0] = 127 / 64
    bias = rng.integers(-50, 50, 4) / np.float32(64)
    x = rng.integers(0, 256, (8, 6, 6, 2)).astype(np.float32)
    x[0, 0, 0] = 0, 255
    with tf.Graph().as_default() as graph:
        made = tf.nn.conv2d(
            tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x"), weight.astype(np.float32), 1, "SAME"
        )
        tf.nn.bias_add(made, bias.astype(np.float32), name="y")
    path = tmp_path / "exact.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    bench = made_bench(target, path, x)
    (layer,) = bench.builder.workload.layers.values()
    plan = Plan({layer.name: layer_plan(layer, LayerPlan(MinMax()))}, 1, bias_correction=kind)
    (found,) = bench.corrections(plan).values()
    assert np.abs(found).max() < 1e-4  # of sums up to 9,000


def test_without_a_bias_there_is_nothing_to_correct(tiny: Any) -> None:
    """The converter for LiteRT gives every convolution a bias."""
    x = np.load(tiny.calibration)["x"]
    found = {}
    for target in sorted(TARGETS):
        bench = made_bench(target, tiny.model, x)
        assert bench.builder.repairs is not None
        layers = bench.builder.workload.layers
        plan = Plan(
            {name: layer_plan(layer, LayerPlan(MinMax())) for name, layer in layers.items()},
            1,
            bias_correction="analytic",
        )
        found[target] = set(
            bench.builder.repairs.corrector.corrections(plan, bench.model, bench.builder.prepared(plan).compiler).biases
        )
    assert found == {"tensorflow": {"conv", "dense"}, "litert": {"conv", "depthwise", "dense"}}


def test_corrections_are_cached_under_a_key_of_their_own(bench: Bench, tmp_path: Path) -> None:
    assert bench.builder.repairs is not None
    corrector = bench.builder.repairs.corrector
    calibration = replace(corrector.calibration, batch_size=COUNT)
    first = Corrector(corrector.target, corrector.layers, calibration, tmp_path / "kept")
    again = Corrector(
        corrector.target,
        corrector.layers,
        replace(calibration, engine=Untouchable(calibration.engine.version)),  # type: ignore[arg-type]
        tmp_path / "kept",
    )
    plans = [bench.plan(*LAYERS, bias_correction=kind) for kind in ("analytic", "empirical")]
    computed = [first.corrections(plan, bench.model, bench.builder.prepared(plan).compiler).biases for plan in plans]
    assert len(list((tmp_path / "kept").iterdir())) == 3  # and the means
    for plan, one in zip(plans, computed, strict=True):
        found = again.corrections(plan, bench.model, None).biases  # type: ignore[arg-type]
        assert {name: values.tolist() for name, values in found.items()} == {
            name: values.tolist() for name, values in one.items()
        }
    # Another analytic plan takes no pass, and finds nothing that belongs to the first.
    other = bench.plan("conv", bias_correction="analytic", channel_wise=False)
    found = again.corrections(other, bench.model, bench.builder.prepared(other).compiler).biases
    assert set(found) == {"conv"} and found["conv"].tolist() != computed[0]["conv"].tolist()


def test_of_several_batches_the_mean_is_taken(
    bench: Bench, weights: Any, x: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = bench.plan(*LAYERS, bias_correction="empirical")
    record = bench.builder.prepared(plan).compiler.compile(plan, tmp_path / "model").record
    monkeypatch.setattr("autoquant.tuning.repairs.bias_correction.LARGEST", 4 * 64 * 16)  # 16 samples
    assert bench.builder.repairs is not None
    samples = bench.builder.repairs.corrector.calibration.samples(SAMPLES)["x"]
    parts = [expected(weights, part, record, "empirical") for part in np.split(samples, (16, 32))]
    found = bench.corrections(plan)
    for name in LAYERS:
        wanted = sum(part[name] * share for part, share in zip(parts, (0.4, 0.4, 0.2), strict=True))
        np.testing.assert_allclose(found[name], wanted, atol=0.02 * np.abs(wanted).max())


def test_no_more_samples_than_needed(bench: Bench) -> None:
    calibration = CalibrationRunner(open_engine(bench.runtime), bench.data, 10)
    assert len(calibration.samples(SAMPLES)["x"]) == COUNT


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_search_corrects_biases_and_makes_a_lost_model_again(
    tiny: Any, regression: Path, tmp_path: Path, target: str
) -> None:
    """The same bytes, from what the run kept."""
    space = tmp_path / "space.toml"
    space.write_text("[global]\nbatch_num = 2\nbias_correction = ['empirical', 'analytic', 'none']")
    options: dict[str, Any] = {
        "metric": "mse",
        "tolerance": 0.0,
        "batch_size": 20,
        "space": space,
        "target": target,
        "sampler": "tpe",
    }
    run = tmp_path / "run"
    autoquant.search(tiny.model, regression, calibration=tiny.calibration, max_trials=3, run=run, **options)
    facts = json.loads((run / "result.json").read_text())
    assert [trial["why"].rpartition(": ")[2] for trial in facts["all_trials"]] == [
        "biases corrected (empirical)",
        "biases corrected (analytic)",
        "biases not corrected",
    ]
    assert len({trial["score"] for trial in facts["all_trials"]}) == 3
    (model,) = (path for path in (run / "best").iterdir() if path.suffix in (".pb", ".tflite"))
    content = model.read_bytes()
    for path in list((run / "best").iterdir()):
        if path.name.startswith("tiny"):
            path.unlink()
    autoquant.resume(run)
    assert model.read_bytes() == content
    # The record does not say how biases were corrected: another trial is built anew, and for converters too.
    lost = next(number for number in (0, 1) if not (run / "trials" / f"000{number}" / model.name).exists())
    made = autoquant.export(run, tmp_path / "out", trial=lost, simulation=target != "tensorflow")
    assert made.transferred is not None
    score = json.loads((run / "trials" / f"000{lost}" / "score.json").read_text())["score"]
    assert made.transferred.score == pytest.approx(score, rel=1e-3)
    if target == "tensorflow":
        assert not autoquant.check(made.model).simulation
        best = autoquant.export(run, tmp_path / "best", simulation=False)
        assert best.transferred is None
        assert not autoquant.check(best.model).simulation
        assert bias_values(best.model) == bias_values(model)


def bias_values(path: Path) -> list[list[int]]:
    """The INT32 constants of a graph."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    tensors = [node.attr["value"].tensor for node in graph.node if node.name.endswith("bias_quant/bias")]
    return [tf.make_ndarray(tensor).tolist() for tensor in tensors]
