"""The functions a Python program calls, apart from searching itself (tests/tuning/test_search.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import DataError, ModelError, PlanError, RunError, UsageError
from autoquant.formats.config_json import load_config
from autoquant.formats.record_text import load_record
from autoquant.tuning.result import SearchResult

SPACE = '[layer]\nact_algo = ["minmax", "ifmr"]\nquant_enable = [true, false]'


@pytest.fixture(scope="module")
def run_options(tiny: Tiny, regression: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a search of four trials."""
    space = tmp_path_factory.mktemp("api") / "space.toml"
    space.write_text(SPACE)
    return {
        "model": tiny.model,
        "data": regression,
        "calibration": tiny.calibration,
        "metric": "mse",
        "tolerance": 0.0,
        "max_trials": 4,
        "batch_size": 16,
        "sampler": "tpe",
        "engine": "tensorflow",  # as `quantize` has it: on another, scales may differ in the last digit
        "space": space,
    }


@pytest.fixture(scope="module")
def run(run_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A run of four trials, of which only the best one's model is left."""
    result = autoquant.search(**run_options, run=tmp_path_factory.mktemp("run") / "run")
    assert len(result.trials) == 4
    return result


def test_export_copies_the_best(run: SearchResult, tmp_path: Path) -> None:
    made = autoquant.export(run.run, tmp_path / "out")
    assert run.best is not None
    assert made.trial == run.best.number
    assert run.model is not None
    assert made.model.read_bytes() == run.model.read_bytes()
    assert load_config(made.config) == run.best.plan
    assert set(load_record(made.record)) == set(run.best.plan.int8)


def test_a_result_stands_for_its_run(run: SearchResult, tmp_path: Path) -> None:
    assert run.model is not None
    assert autoquant.export(run, tmp_path / "out").model.read_bytes() == run.model.read_bytes()
    assert autoquant.explain(run).facts() == autoquant.explain(run.run).facts()


def test_export_builds_a_deleted_model_again(run: SearchResult, run_options: dict[str, Any], tmp_path: Path) -> None:
    """Byte for byte what the trial saved and scored, which a search that keeps all models has."""
    assert run.best is not None
    other = next(trial for trial in run.trials if trial.number != run.best.number)
    kept = autoquant.search(**run_options, keep_all_models=True, run=tmp_path / "kept")
    saved = kept.run / "trials" / f"{other.number:04d}"
    assert not list((run.run / "trials" / f"{other.number:04d}").glob("*.pb"))
    made = autoquant.export(run.run, tmp_path / "out", trial=other.number)
    assert made.model.read_bytes() == (saved / "tiny_quantized.pb").read_bytes()
    assert made.record.read_bytes() == (saved / "record.txt").read_bytes()


def test_quantize_gives_what_the_trial_saved(tiny: Tiny, run: SearchResult, tmp_path: Path) -> None:
    made = autoquant.export(run.run, tmp_path / "out")
    quantized = autoquant.quantize(tiny.model, made.config, tiny.calibration, tmp_path / "again", batch_size=16)
    assert made.model.read_bytes() == quantized.model.read_bytes()
    assert made.record.read_bytes() == quantized.record.read_bytes()


def test_export_does_not_build_from_another_model(tiny: Tiny, regression: Path, tmp_path: Path) -> None:
    """A model trained again under the same path is not what the record belongs to."""
    model = tmp_path / "model.pb"
    model.write_bytes(tiny.model.read_bytes())
    options: dict[str, Any] = {"metric": "mse", "tolerance": 0.0, "max_trials": 2}
    options["calibration"] = tiny.calibration
    result = autoquant.search(model, regression, **options, run=tmp_path / "run")
    weights = tiny.weights["conv"]
    model.write_bytes(model.read_bytes().replace(weights.tobytes(), (weights * np.float32(2)).tobytes()))
    with pytest.raises(RunError, match=r"its model .*model\.pb is not what the run was started with"):
        assert result.best is not None
        autoquant.export(result.run, tmp_path / "out", trial=1 - result.best.number)
    assert autoquant.export(result.run, tmp_path / "out").model.is_file()


def test_export_of_what_is_not_there(run: SearchResult, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no trial 99 that was carried out"):
        autoquant.export(run.run, tmp_path / "out", trial=99)
    with pytest.raises(RunError, match=r"is not a run: it has no run.toml"):
        autoquant.export(tmp_path, tmp_path / "out")


def test_export_to_where_nothing_can_be_written(run: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        autoquant.export(run.run, tmp_path / "file" / "out")


def test_quantize_a_retrained_model(tiny: Tiny, run: SearchResult, tmp_path: Path) -> None:
    """The same layers with other weights: scales are new, the plan is the same."""
    weights = tiny.weights["conv"]
    retrained = tmp_path / "retrained.pb"
    retrained.write_bytes(tiny.model.read_bytes().replace(weights.tobytes(), (weights * np.float32(2)).tobytes()))
    config = autoquant.export(run.run, tmp_path / "out", trial=0).config
    old = load_record(tmp_path / "out" / "record.txt")
    made = autoquant.quantize(retrained, config, tiny.calibration, tmp_path / "new", batch_size=16)
    new = load_record(made.record)
    assert set(new) == set(old)
    np.testing.assert_allclose(new["conv"].scale_w, np.array(old["conv"].scale_w) * 2, rtol=1e-6)
    assert made.model.name == "retrained_quantized.pb"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.update(convv=config.pop("conv")),
            "'convv' is an invalid layer name or parameter; did you mean 'conv'",
        ),
        (lambda config: config.update(batch_num=1000), "holds 4 batches of 16, but batch_num is 1000"),
        (
            lambda config: [config[name].update(quant_enable=False) for name in ("conv", "depthwise", "dense")],
            "no layer",
        ),
        (
            lambda config: config["dense"]["weight_quant_params"].update(channel_wise=True),
            "dense: channel_wise must be",
        ),
    ],
    ids=["layer", "batches", "nothing", "matmul"],
)
def test_quantize_with_a_config_that_does_not_fit(
    tiny: Tiny, run: SearchResult, tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    made = autoquant.export(run.run, tmp_path / "out", trial=0)
    config = json.loads(made.config.read_text())
    config.pop("autoquant", None)
    change(config)
    made.config.write_text(json.dumps(config))
    with pytest.raises((PlanError, DataError), match=message):
        autoquant.quantize(tiny.model, made.config, tiny.calibration, tmp_path / "new", batch_size=16)


def test_inspect(tiny: Tiny) -> None:
    found = autoquant.inspect(tiny.model)
    assert [(layer.name, layer.op, layer.macs, layer.parameters) for layer in found.survey.layers] == [
        ("conv", "Conv2D", 8 * 8 * 4 * 9 * 2, 72 + 4),
        ("depthwise", "DepthwiseConv2dNative", 3 * 3 * 8 * 9, 72),
        ("dense", "MatMul", 24, 24 + 3),
    ]
    with pytest.raises(ModelError, match=r"absent\.pb"):
        autoquant.inspect("absent.pb")


def test_unknown_options_are_refused(tiny: Tiny) -> None:
    wrong: dict[str, Any] = {"max_trails": 3}
    with pytest.raises(UsageError, match="max_trails"):
        autoquant.search(tiny.model, tiny.evaluation, **wrong)
    with pytest.raises(UsageError, match="--tolerance: cannot read '-1%'"):
        autoquant.search(tiny.model, tiny.evaluation, tolerance="-1%")
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = autoquant.serach
